"""Numbers for the tests of the torch parts: float64, from a generator of the test's own."""

from functools import partial

import pytest
import torch


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def randn():
    """`torch.randn` in float64 with a seed of its own."""
    own = torch.Generator().manual_seed(1)
    return partial(torch.randn, generator=own, dtype=torch.float64)
