"""What several tests of conformance need."""

import pytest
import torch


@pytest.fixture
def double_by_default():
    """NAdam's product of momenta is a scalar of torch's default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
