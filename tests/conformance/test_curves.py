"""Our Adam in place of torch's gives the same losses, for networks as they are in use."""

import pytest
import torch

from tests.benchmarks.curves import ENTRANTS, NETWORKS, differences

FEATURES = {"mnist": 784, "cifar10": 3072}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_losses_are_those_of_torch_to_rounding(name):
    source, network = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(8, FEATURES[source], generator=generator, dtype=torch.float64)
    labels = torch.arange(8)
    rows = torch.randint(8, (4, 3), generator=generator)
    losses, found = differences(network, (inputs, labels), rows)
    assert losses.unique().numel() == 4
    assert found.keys() == ENTRANTS.keys()
    for apart in found.values():
        assert apart[-1] < 1e-12
