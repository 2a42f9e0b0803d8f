"""What all tests share: one thread, and Triton's interpreter where there is no GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported

torch.set_num_threads(1)


COLLECTED = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Keep the names of all collected tests, before those that `-m` leaves out are dropped."""
    config.stash[COLLECTED] = [item.nodeid for item in items]


@pytest.fixture(autouse=True)
def _one_thread():
    """A test may change the number of threads; the next one starts with one again."""
    yield
    torch.set_num_threads(1)
