"""SeRP and VASP: self-supervised learning from perturbed point clouds (arXiv 2209.06067).

Reading order, by section of the paper:

3.1      `geometry`, `perturbation`, `families`, `pretext`
3.2      `pointnet`
3.3      `patches`, `transformer`; `point_mae` is the baseline that masks instead of perturbing
3.4      `bottlenecks`, `vasp`
4        `presets`, `training`, `checkpoint`, `classifier`

`seeding` and `validation` are helpers of all of them. Skip these packages on a first reading:
`accel` (speed), `data` (readers), `evaluation`, `experiments`, `course`.
"""

__version__ = "0.1.0"
