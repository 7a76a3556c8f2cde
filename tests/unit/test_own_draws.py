"""What a module draws itself, as dropout does, comes from the seed of the run."""

import pytest
import torch
from torch import nn

import flowopt as fo

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.rand(8, 3, generator=GENERATOR, dtype=torch.float64)


class Drawing(nn.Module):
    """A layer whose outputs dropout thins; it keeps what is left of ones."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, inputs):
        kept = self.dropout(torch.ones(16, dtype=torch.float64))
        self.seen.append(kept)
        return (inputs @ self.weight) * kept.mean()


def run(seed=0, start=None, steps=6, module=None):
    module = module or Drawing()
    problem = fo.problems.network(module, nn.functional.mse_loss, (INPUTS, torch.zeros(8)))
    solution = fo.integrate(
        fo.flows.gradient_flow(),
        fo.Euler(),
        problem,
        problem.start() if start is None else start,
        step_size=0.01,
        steps=steps,
        seed=seed,
        compile=False,
    )
    return solution, torch.stack(module.seen)


def test_runs_with_one_seed_are_one_and_with_another_another():
    torch.manual_seed(5)
    one, first = run()
    torch.manual_seed(6)
    same, second = run()
    other, third = run(seed=1)
    assert torch.equal(first, second)
    assert torch.equal(one.position["weight"], same.position["weight"])
    assert not torch.equal(first, third)
    assert not torch.equal(one.position["weight"], other.position["weight"])


def test_every_step_and_every_part_of_a_run_draws_anew():
    solution, drawn = run()
    _, later = run(start=solution.state)
    everything = torch.cat([drawn, later])
    assert len(torch.unique(everything, dim=0)) == len(everything)


@pytest.mark.parametrize("steps", [0, 3])
def test_torchs_own_generator_is_left_as_it_was(steps):
    before = torch.get_rng_state()
    run(steps=steps)
    assert torch.equal(torch.get_rng_state(), before)
