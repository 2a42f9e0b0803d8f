"""What all tests share: one thread, and Triton's interpreter where there is no GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """A test may change the number of threads; the next one starts with one again."""
    yield
    torch.set_num_threads(1)
