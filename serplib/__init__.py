"""SeRP and VASP: self-supervised learning from perturbed point clouds (arXiv 2209.06067).

One module per section of the paper: `geometry`, `perturbation` (3.1), `pointnet` (3.2), `patches`,
`transformer` (3.3), `vasp` (3.4), `presets`, `training`, `classifier` (4). `data` holds the shapes.
"""

__version__ = "0.1.0"
