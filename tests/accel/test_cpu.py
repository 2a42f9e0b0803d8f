"""What the library tells the C library's malloc: memory given back is kept for the next step."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from serplib import fast

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for round in range(15):
    if round == 10:  # what it took to get there does not count
        before = faults()
    for size in SIZES:
        torch.ones(size, 2**18)  # (size, 2^18) float32: `size` MiB
print(faults() - before)
"""


def faults_of_five_rounds(sizes, wanted):
    """Page faults of a process that makes tensors of these MiB and gives them back, five times."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.replace("SIZES", str(sizes))],
        env=os.environ | {"SERP_FAST": wanted, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told so")
@pytest.mark.parametrize("sizes", [[1, 3, 20], [30], [200]])
def test_the_system_is_asked_once_for_the_memory_of_a_step(sizes):
    # A page of 4 KiB, or where the system has them of 2 MiB, is a fault each time that it is given.
    assert faults_of_five_rounds(sizes, "1") < 5


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told so")
def test_it_is_left_alone_where_serp_fast_is_off():
    assert faults_of_five_rounds([200], "0") >= 5 * 200 / 2
