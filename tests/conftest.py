"""What all tests share: one thread, and where the real ModelNet40 is."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """A test may change the number of threads; the next one starts with one again."""
    yield
    torch.set_num_threads(1)
