"""Drawn training sessions: every way to step goes where torch's optimizer, or the loop, goes."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn

from flowopt.optim.stepping.cohorts import CLOCK
from tests.robustness.worlds import DRAWN, KINDS, LAYOUTS, NEIGHBOUR, World, laid

TOLERANCES = {
    torch.float64: 1e-11,
    torch.complex128: 1e-11,
    torch.float32: 2e-4,
    torch.complex64: 2e-4,
}
SHAPES = [(), (1,), (0,), (3,), (2, 0), (2, 3), (1, 4), (2, 3, 2, 2)]
TENSORS = st.tuples(
    st.sampled_from(SHAPES), st.sampled_from(list(TOLERANCES)), st.sampled_from(LAYOUTS)
)
GROUPS = st.lists(TENSORS, max_size=3)
MOST_GROUPS = 4
# What a backward pass leaves in a parameter.
GRADIENTS = [*LAYOUTS, "none", "zeros", "expanded", "accumulated", "negative", "of another"]
CHANGES = ["same numbers", "other numbers", "another parameter"]
RATES = [0.0, 1e-30, 1e-3, 0.05, 0.3]
WAYS = {"loop": {"foreach": False}, "lists": {}, "compiled": {"compile": True}}


class Training(RuleBasedStateMachine):
    """The same happens to torch's optimizer and to ours, stepped in every way."""

    def __init__(self):
        super().__init__()
        self.worlds: dict[str, World] = {}
        self.generator = torch.Generator().manual_seed(0)

    @initialize(
        name=st.sampled_from(list(KINDS)),
        groups=st.lists(GROUPS, min_size=1, max_size=MOST_GROUPS - 1),
        maximize=st.booleans(),
        way=st.sampled_from(list(WAYS)),
    )
    def begin(self, name, groups, maximize, way):
        kind = KINDS[name]
        starts = [[(self.drawn(s, d), layout) for s, d, layout in group] for group in groups]

        def world(options, theirs=False, interrupted=True):
            own = [[nn.Parameter(laid(*start)) for start in group] for group in starts]
            return World(kind, {"maximize": maximize, **options}, theirs, interrupted, own)

        if kind.theirs:
            self.worlds["torch"] = world({}, theirs=True)
        self.worlds |= {name: world(options) for name, options in WAYS.items()}
        self.way = way
        self.uninterrupted = world(WAYS[way], interrupted=False)
        self.worlds["uninterrupted"] = self.uninterrupted

    @property
    def first(self):
        return next(iter(self.worlds.values()))

    def drawn(self, shape, dtype):
        return torch.randn(shape, dtype=dtype, generator=self.generator)

    def tolerance(self, parameter):
        """Where a number is shared by all, the least exact of them tells."""
        all_of_them = self.first.parameters if self.first.kind.sums else [parameter]
        return max(TOLERANCES[p.dtype] for p in all_of_them)

    @rule(data=st.data(), steps=st.integers(1, 3))
    def train(self, data, steps):
        forms = [data.draw(st.sampled_from(GRADIENTS)) for _ in self.first.parameters]
        for _ in range(steps):
            for place, form in enumerate(forms):
                self.backward(place, form)
            worlds = self.worlds.values()
            before = [[(p.stride(), p.data_ptr()) for p in w.parameters] for w in worlds]
            for world in worlds:
                world.step()
            assert before == [[(p.stride(), p.data_ptr()) for p in w.parameters] for w in worlds]

    def backward(self, place, form):
        """Leaves a gradient in one parameter of every world."""
        numbers = self.drawn(self.first.parameters[place].shape, torch.complex128) + 0.5
        for world in self.worlds.values():
            parameter = world.parameters[place]
            gradient = (numbers if parameter.is_complex() else numbers.real).to(parameter.dtype)
            alike = [
                other.grad
                for other in world.parameters[:place]
                if other.grad is not None
                and (other.shape, other.dtype) == (parameter.shape, parameter.dtype)
            ]
            if form == "none" or not parameter.requires_grad:
                parameter.grad = None
            elif form == "zeros":
                parameter.grad = torch.zeros_like(parameter)
            elif form == "expanded":
                parameter.grad = gradient.sum().expand(parameter.shape)
            elif form == "accumulated" and parameter.grad is not None:
                parameter.grad = parameter.grad + gradient
            elif form == "negative":
                parameter.grad = torch._neg_view(gradient)
            elif form == "of another" and alike:
                parameter.grad = alike[0]
            else:
                parameter.grad = laid(gradient, form)

    @rule()
    def save_and_load(self):
        for world in self.worlds.values():
            world.reload()

    @rule()
    def copy(self):
        for world in self.worlds.values():
            world.duplicate()

    @rule(lr=st.sampled_from(RATES), as_tensor=st.booleans(), data=st.data())
    def schedule(self, lr, as_tensor, data):
        place = data.draw(st.integers(0, len(self.first.groups) - 1))
        for world in self.worlds.values():
            value = torch.tensor(lr, dtype=torch.float64) if as_tensor else lr
            world.optimizer.param_groups[place]["lr"] = value

    @rule(decay=st.sampled_from([0.0, 0.1]), momentum=st.sampled_from([0.5, 0.9]))
    def change_the_rule(self, decay, momentum):
        for world in self.worlds.values():
            for group in world.optimizer.param_groups:
                changes = {"weight_decay": decay}
                if group.get("momentum"):
                    changes["momentum"] = momentum
                group.update({n: value for n, value in changes.items() if n in group})

    @rule(group=GROUPS)
    @precondition(lambda self: len(self.first.groups) < MOST_GROUPS)
    def add(self, group):
        starts = [(self.drawn(shape, dtype), layout) for shape, dtype, layout in group]
        for world in self.worlds.values():
            world.add([laid(*start) for start in starts])

    @rule(data=st.data(), layout=st.sampled_from(LAYOUTS), change=st.sampled_from(CHANGES))
    @precondition(lambda self: self.first.parameters)
    def reassign(self, data, layout, change):
        place = data.draw(st.integers(0, len(self.first.parameters) - 1))
        like = self.first.parameters[place]
        numbers = self.drawn(like.shape, like.dtype)
        for world in self.worlds.values():
            parameter = world.parameters[place]
            if change == "another parameter":
                world.replace(place, laid(numbers, layout))
            else:
                same = change == "same numbers"
                parameter.data = laid(parameter.data if same else numbers, layout)

    @rule(data=st.data())
    @precondition(lambda self: self.first.parameters)
    def freeze_or_thaw(self, data):
        place = data.draw(st.integers(0, len(self.first.parameters) - 1))
        for world in self.worlds.values():
            parameter = world.parameters[place]
            parameter.requires_grad_(not parameter.requires_grad)

    @rule(to_none=st.booleans())
    def clear_and_step(self, to_none):
        for world in self.worlds.values():
            world.optimizer.zero_grad(set_to_none=to_none)
            world.step()

    @invariant()
    def all_are_where_the_first_is(self):
        for name, world in self.worlds.items():
            for found, expected in zip(world.parameters, self.first.parameters, strict=True):
                assert found.dtype == expected.dtype
                assert_close(found, expected, name, self.tolerance(found))
                around = found.data._base
                if around is not None and around.shape == (*found.shape, 2):
                    assert bool((around[..., 1] == NEIGHBOUR).all()), name

    @invariant()
    def what_is_kept_is_the_same(self):
        ours = [world for world in self.worlds.values() if not world.theirs]
        for world in ours[1:]:
            for groups in zip(
                world.optimizer.param_groups, ours[0].optimizer.param_groups, strict=True
            ):
                assert_alike(*groups)
            for pair in zip(world.parameters, ours[0].parameters, strict=True):
                one, two = world.optimizer.state[pair[0]], ours[0].optimizer.state[pair[1]]
                assert one.keys() == two.keys()
                assert one.get(CLOCK) == pytest.approx(two.get(CLOCK), abs=1e-5)
                for name in one.keys() - {CLOCK}:
                    assert one[name].dtype == two[name].dtype == pair[0].dtype
                    assert_close(one[name], two[name], name, self.tolerance(pair[0]))

    @invariant()
    def an_interruption_changes_no_bit(self):
        if self.worlds:
            pairs = zip(
                self.worlds[self.way].parameters, self.uninterrupted.parameters, strict=True
            )
            assert all(torch.equal(*pair) for pair in pairs)


def assert_close(found, expected, message, tolerance):
    torch.testing.assert_close(
        found, expected, rtol=tolerance, atol=tolerance, msg=lambda text: f"{message}: {text}"
    )


def assert_alike(group, expected):
    """All values of two groups but their parameters."""
    assert group.keys() == expected.keys()
    for name in group.keys() - {"params"}:
        value = group[name]
        assert value == expected[name] or value == pytest.approx(expected[name], abs=1e-5), name


TestTraining = Training.TestCase
TestTraining.settings = settings(DRAWN, max_examples=40, stateful_step_count=12)
