"""ShapeNet55 as Point-BERT lays it out (paper, section 4.1; Chang et al., Yu et al.)."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from serplib.data.common import DataError, find_folder
from serplib.data.formats import one_each, read_list, read_npy
from serplib.data.prepare import Source

FOLDERS = ("shapenet55", "ShapeNet55-34", "ShapeNet55", "ShapeNet-55")
_TABLE = """
02691156 airplane 02747177 trash bin 02773838 bag 02801938 basket 02808440 bathtub 02818832 bed
02828884 bench 02843684 birdhouse 02871439 bookshelf 02876657 bottle 02880940 bowl 02924116 bus
02933112 cabinet 02942699 camera 02946921 can 02954340 cap 02958343 car 02992529 cellphone
03001627 chair 03046257 clock 03085013 keyboard 03207941 dishwasher 03211117 display
03261776 earphone 03325088 faucet 03337140 file cabinet 03467517 guitar 03513137 helmet
03593526 jar 03624134 knife 03636649 lamp 03642806 laptop 03691459 loudspeaker 03710193 mailbox
03759954 microphone 03761084 microwave 03790512 motorbike 03797390 mug 03928116 piano
03938244 pillow 03948459 pistol 03991062 flowerpot 04004475 printer 04074963 remote
04090263 rifle 04099429 rocket 04225987 skateboard 04256520 sofa 04330267 stove 04379243 table
04401088 telephone 04460130 tower 04468005 train 04530566 watercraft 04554684 washer
"""
# WordNet's number of a class -> its name in ShapeNet, in label order.
SYNSETS = {number: name.strip() for number, name in re.findall(r"(\d{8}) ([a-z ]+)", _TABLE)}


def locate() -> Path:
    """Return the folder of ShapeNet55; DataError where there is none."""
    return find_folder("ShapeNet55", FOLDERS, "shapenet55")


def read(root: Path, split: str, name: str) -> Source:
    """List a split: ``shapenet_pc/<synset>-<model>.npy``, named in ``<split>.txt``.

    Raises:
        DataError: the list is missing or damaged.
    """
    lists = [root / f"{split}.txt", root / "ShapeNet-55" / f"{split}.txt"]
    list_file = next((file for file in lists if file.is_file()), None)
    if list_file is None:
        raise DataError(f"{lists[0]}: file not found, nor {lists[1]}")
    # Two of the published names have no model: 04379243-.npy and 02747177-.npy.
    names = read_list(list_file, r"\d{8}-[\w.-]*\.npy", "<synset>-<model>.npy")
    if unknown := sorted({name[:8] for name in names} - set(SYNSETS)):
        raise DataError(f"{list_file}: synset {unknown[0]} is none of ShapeNet55's 55")
    order = list(SYNSETS)
    labels = torch.tensor([order.index(name[:8]) for name in names])  # (S,)
    files = [root / "shapenet_pc" / name for name in names]
    classes = tuple(SYNSETS.values())
    return Source(name, "npy", root, classes, labels, files, one_each(files, read_npy))
