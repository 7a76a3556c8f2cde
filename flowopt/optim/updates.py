"""Steps of an optimizer as native kernels: one launch for all tensors of a group."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowopt.controls import Constant
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Noise, Scheme
from flowopt.core.noise import PhiloxNoise
from flowopt.core.state import Leaves, State
from flowopt.flows import EquationFlow
from flowopt.kernels import UnfitError
from flowopt.kernels.step import frozen
from flowopt.kernels.update import ElementNoise, Update, build_update, working
from flowopt.optim.stepping.cohorts import has_clocks
from flowopt.optim.tensors import Elements, Tensors, UnlikeError
from flowopt.stepper import Carry, Stepper

MOST_UPDATES = 64
# Elements with which a new kernel is compared with eager torch.
CHECKED = 8
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}

_known: OrderedDict[Hashable, tuple[Update, list]] = OrderedDict()


class Plan(NamedTuple):
    """How a group is stepped; the control only judges the step size."""

    flow: EquationFlow
    scheme: Scheme
    step_size: Tensor
    control: Constant
    maximize: bool


def advanced(plan: Plan, state: State, evaluation: Evaluation, noise: Noise, oracle: Any) -> Carry:
    """One step of a group."""
    stepper = Stepper(plan.flow, plan.scheme, oracle, noise, plan.control, observed=False)
    none = torch.zeros_like(state.step)
    return stepper.advance(
        Carry(state, evaluation, plan.step_size, (), none, none, none, none, none)
    )


class NativeSteps:
    """Kernels and tables of one optimizer; all of it can be made again.

    Attributes:
        work: The last step: tensors of one type each, and their kernels.
    """

    def __init__(self):
        """See the class."""
        self._updates: dict[tuple, tuple[Update, Plan]] = {}
        self._tensors: dict[Hashable, Tensors] = {}
        self.work: list[tuple[Tensors, Update]] = []

    def step(
        self,
        place: Hashable,
        plan: Plan,
        columns: Sequence[list[Tensor]],
        elements: Elements,
        numbers: Sequence[float | int],
    ) -> list[float | int]:
        """Steps tensors in place.

        Args:
            place: Names the tensors, which are the same at most steps.
            plan: How they are stepped.
            columns: The variables of the flow, then the gradients before their sign.
            elements: Numbers of the tensors' elements.
            numbers: What all elements share, in the order of `_types`.

        Returns:
            The numbers after the step.

        Raises:
            CompatibilityError: The step does not fit a kernel; nothing has been stepped.
        """
        groups = [shard.groups for shard in elements.shards or ()]
        if len(set(groups)) < 2:
            try:
                work = [self._taken((place, 0), plan, columns, elements)]
            except UnlikeError:
                if len({tensor.dtype for tensor in columns[0]}) == 1:
                    raise
            else:
                self.work = work
                return _stepped(work, numbers)
        # Those of one type that the same processes share go together.
        kinds = [(t.dtype, *groups[i : i + 1]) for i, t in enumerate(columns[0])]
        work = []
        for number, alike in enumerate(dict.fromkeys(kinds)):
            chosen = [i for i, kind in enumerate(kinds) if kind == alike]
            own = [[column[i] for i in chosen] for column in columns]
            rest = elements.of(chosen, columns[0])
            work.append(self._taken((place, number), plan, own, rest))
        self.work = work
        return _stepped(work, numbers)

    def _taken(
        self,
        place: Hashable,
        plan: Plan,
        columns: Sequence[list[Tensor]],
        elements: Elements,
    ) -> tuple[Tensors, Update]:
        """Tensors of one type, ready to be stepped, and what steps them."""
        dtype = columns[0][0].dtype
        update = self._update(plan, dtype)
        key = place, dtype, len(columns)
        if key not in self._tensors:
            self._tensors[key] = Tensors()
        tensors = self._tensors[key]
        tensors.take(columns, elements, update)
        return tensors, update

    def _update(self, plan: Plan, dtype: torch.dtype) -> Update:
        key = (id(plan.flow.equations), id(plan.scheme), plan.maximize, dtype)
        if key not in self._updates:
            # The plan is kept, so that no other object takes the place of its parts.
            self._updates[key] = _checked(plan, dtype), plan
        return self._updates[key][0]


def _stepped(
    work: Sequence[tuple[Tensors, Update]], numbers: Sequence[float | int]
) -> list[float | int]:
    """Steps tensors, those of each type by their own update; the numbers after the step."""
    sums: list[float] = []
    for place in range(len(work[0][1].passes)):
        parts = [tensors.totals(update, place, numbers, sums) for tensors, update in work]
        sums += map(sum, zip(*parts, strict=True))
    results = [tensors.run(update, numbers, sums) for tensors, update in work]
    return results[0]


class Prepared(NamedTuple):
    """A plan, and what is asked of it at every step.

    Attributes:
        plan: How a group is stepped.
        settings: Hyperparameters and step size.
        names: Variables other than the position.
        scalars: Of the flow.
        uses_loss: Whether it needs the loss.
        closure_free: Whether it needs no gradient but the one at the start of a step.
        noisy: Whether it draws random numbers.
        clocks: Whether each parameter has a time and scalars of its own.
    """

    plan: Plan
    settings: list[float]
    names: list[str]
    scalars: tuple[str, ...]
    uses_loss: bool
    closure_free: bool
    noisy: bool
    clocks: bool


class Plans:
    """The plans of an optimizer's groups; all of them can be made again."""

    def __init__(self):
        """See the class."""
        self._plans: dict[int, tuple[tuple, Prepared]] = {}

    def prepared(self, place: int, values: tuple, make: Callable[[], Plan]) -> Prepared:
        """The plan of a group, made again when its values change."""
        known = self._plans.get(place)
        # Values that may change are read anew, even where they are equal for now.
        plain = all(map(is_plain, values))
        if known is None or known[0] != values or not plain:
            plan = make()
            flow = plan.flow
            hyperparameters = flow.hyperparameters.values()
            settings = [*(value.item() for value in hyperparameters), plan.step_size.item()]
            names = [name for name in flow.variables if name != "theta"]
            closure_free, clocks = plan.scheme.closure_free(flow), has_clocks(flow.equations)
            asks = flow.uses_loss, closure_free, flow.noisy, clocks and closure_free
            known = values, Prepared(plan, settings, names, flow.scalars, *asks)
            if plain:
                self._plans[place] = known
        return known[1]


def is_plain(value: object) -> bool:
    """Whether a value can not change without becoming another."""
    if isinstance(value, tuple):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float)


def _types(plan: Plan) -> list[torch.dtype]:
    whole, real = torch.int64, torch.float64
    reals = len(plan.flow.hyperparameters) + 2
    return [*[real] * (len(plan.flow.scalars) + 1), whole, *[real] * reals, whole, whole]


def _step_function(plan: Plan) -> Callable[..., list[Tensor]]:
    """A step of one element as a function of columns, index and numbers."""
    variables, scalars = plan.flow.variables, plan.flow.scalars

    def function(*tensors: Tensor) -> list[Tensor]:
        count = len(variables)
        leaves, gradient, element = tensors[:count], tensors[count], tensors[count + 1]
        rest = list(tensors[count + 2 :])
        values = [rest.pop(0) for _ in scalars]
        time, step = rest.pop(0), rest.pop(0)
        settings = {name: rest.pop(0) for name in plan.flow.hyperparameters}
        step_size, loss, seed, first = rest
        state = State(
            {name: (leaf,) for name, leaf in zip(variables, leaves, strict=True)},
            dict(zip(scalars, values, strict=True)),
            time,
            step,
        )
        own = plan._replace(flow=plan.flow.with_hyperparameters(**settings), step_size=step_size)
        evaluation = Evaluation(loss, (-gradient if plan.maximize else gradient,))
        carry = advanced(own, state, evaluation, ElementNoise(seed, element, first), _NoOracle())
        after = carry.state
        if carry.evaluation is not None:
            raise UnfitError("the step ends with a gradient")
        return [
            *(after.variables[name][0] for name in variables),
            gradient,
            element,
            *(after.scalars[name] for name in scalars),
            after.time,
            after.step,
            *tensors[count + 2 + len(scalars) + 2 :],
        ]

    return function


class _NoOracle:
    """Nobody to ask for a gradient within a step."""

    def evaluate(self, position: Leaves, sample: object) -> Evaluation:
        """Raises `UnfitError`."""
        raise UnfitError("the scheme evaluates gradients within the step")


def _checked(plan: Plan, dtype: torch.dtype) -> Update:
    """The kernel of a plan, compared with eager torch when it is made."""
    flow, scheme, kept = plan.flow, plan.scheme, []
    held = any(isinstance(value, Tensor) for value in getattr(scheme, "__dict__", {}).values())
    what = id(scheme) if held else frozen(scheme, kept)
    key = (flow.equations, flow.name, flow.per_step, what, plan.maximize, dtype)
    if key not in _known:
        columns = len(flow.variables) + 1
        update = build_update(_step_function(plan), columns, _types(plan), dtype)
        _compare(update, plan, dtype)
        _known[key] = update, [kept, scheme]
        while len(_known) > MOST_UPDATES:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key][0]


def _compare(update: Update, plan: Plan, dtype: torch.dtype) -> None:
    """Raises `UnfitError` unless a kernel agrees with eager torch on a few numbers."""
    line = torch.linspace(0.3, 0.9, CHECKED, dtype=dtype)
    offsets, sizes = (1, 6), (5, CHECKED - 5)
    gradient = tuple(part.clone() for part in (0.7 - line).split(sizes))
    variables = {
        name: tuple(part.clone() for part in (line / (place + 1)).split(sizes))
        for place, name in enumerate(plan.flow.variables)
    }
    half = torch.tensor(0.5, dtype=torch.float64)
    wide = {n: tuple(leaf.to(working(dtype)) for leaf in v) for n, v in variables.items()}
    state = State(wide, dict.fromkeys(plan.flow.scalars, half), half, torch.tensor(3))
    noise = PhiloxNoise(torch.tensor(11), torch.tensor(0), offsets)
    signed = tuple((-g if plan.maximize else g).to(working(dtype)) for g in gradient)
    expected = advanced(plan, state, Evaluation(half, signed), noise, _NoOracle()).state
    tensors, settings = Tensors(), plan.flow.hyperparameters.values()
    columns = [list(leaves) for leaves in (*variables.values(), gradient)]
    tensors.take(columns, Elements(offsets[0], None), update)
    shared = [*state.scalars.values(), half, state.step, *settings, plan.step_size, half]
    numbers = _stepped([(tensors, update)], [*(value.item() for value in shared), 11, offsets[0]])
    after = [*expected.scalars.values(), expected.time, expected.step]
    pairs = list(zip(torch.tensor(numbers, dtype=torch.float64), after, strict=False))
    for name, leaves in variables.items():
        pairs += zip(leaves, expected.variables[name], strict=True)
    for ours, theirs in pairs:
        tolerance = TOLERANCES[dtype]
        if not torch.allclose(
            ours.double(), theirs.double(), rtol=tolerance, atol=tolerance, equal_nan=True
        ):
            raise UnfitError(
                "a step of the kernel differs from eager torch: does it depend on other elements "
                "or on numbers that change?"
            )
