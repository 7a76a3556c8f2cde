"""Steps of whole lists of tensors, in place, against steps of one tensor after the other."""

import pytest
import torch

import flowopt as fo
from flowopt.optim import FlowOptimizer
from flowopt.registry import FLOWS
from tests.conformance.test_torch_database import ENTRIES, NAMES, settings_of
from tests.reference.optimizers import kept_tensors

SHAPES = [(3, 2), (), (5,), (0,), (2, 1, 2)]
STEPS = 12
WORDS = [
    pytest.param(name, word, id=f"{name} {word}")
    for name, entry in FLOWS.items()
    for word in entry.words
    if fo.Splitting(word).closure_free(entry.build())
]
PRESETS = [
    pytest.param(name, number, id=f"{name} {number}")
    for name in NAMES
    for number in range(len(ENTRIES[name].optim_inputs_func(device="cpu")))
]


def stepped(build, foreach):
    """Parameters after some steps, and what the optimizer keeps of them."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.rand(s, generator=generator, dtype=torch.float64) for s in SHAPES]
    optimizer = build(parameters, foreach)
    for _ in range(STEPS):
        for parameter in parameters:
            parameter.grad = torch.rand(parameter.shape, generator=generator).double() - 0.3
        gradients = [parameter.grad.clone() for parameter in parameters]
        optimizer.step(lambda: torch.tensor(1.5))
        assert all(torch.equal(p.grad, g) for p, g in zip(parameters, gradients, strict=True))
    kept = [value for p in parameters for value in kept_tensors(optimizer, p).values()]
    return torch.cat([tensor.flatten() for tensor in (*parameters, *kept)])


@pytest.mark.parametrize(("name", "word"), WORDS)
def test_every_flow_steps_lists_as_it_steps_tensors(name, word):
    entry = FLOWS[name]

    def build(parameters, foreach):
        scheme = fo.Splitting(word)
        return FlowOptimizer(
            parameters, entry.build(), scheme, lr=entry.step_size, seed=3, foreach=foreach
        )

    torch.testing.assert_close(stepped(build, True), stepped(build, False), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "number"), PRESETS)
def test_every_preset_steps_lists_as_it_steps_tensors(name, number):
    def build(parameters, foreach):
        settings = settings_of(name, number)
        return getattr(fo.optim, name)(parameters, **settings, foreach=foreach)

    torch.testing.assert_close(stepped(build, None), stepped(build, False), rtol=1e-12, atol=1e-12)


def test_lists_are_stepped_where_they_lie():
    parameter = torch.ones(4)
    optimizer = fo.optim.Adam([parameter])
    places = []
    for _ in range(3):
        parameter.grad = torch.ones(4)
        optimizer.step()
        kept = kept_tensors(optimizer, parameter).values()
        places.append([parameter.data_ptr(), *map(torch.Tensor.data_ptr, kept)])
    assert places[0] == places[1] == places[2]


def test_autograd_does_not_follow_lists():
    with pytest.raises(fo.CompatibilityError, match="leave out foreach=True"):
        fo.optim.SGD([torch.ones(2)], foreach=True, differentiable=True)


@pytest.mark.parametrize("options", [{"foreach": True}, {"compile": True}], ids=str)
def test_start_values_that_are_the_gradient_leave_it_as_it_is(options):
    flow = fo.Flow.from_text(
        """
        M: dm/dt = g - m
        N: dn/dt = g**2 - n
        A: dtheta/dt = -m*n
        start m = g
        start n = g
        """
    )

    def build(parameters, chosen):
        return FlowOptimizer(parameters, flow, fo.Splitting("MNA"), lr=0.1, **chosen)

    expected = stepped(build, {"foreach": False})
    torch.testing.assert_close(stepped(build, options), expected, rtol=1e-12, atol=1e-12)
