"""What steps together: parameters of a group that have taken the same steps.

Where nothing is summed over elements, each parameter may have its own time, number of steps and
scalars, as each has its own number of steps in torch.optim: a step without a gradient does not
count. Parameters whose clocks agree share one, and are stepped at once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import is_, itemgetter
from typing import Any, NamedTuple

from torch import Tensor

from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.optim.tensors import Elements
from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, Equations, t

# In the state of a parameter: its time, number of steps and scalars.
CLOCK = "clock"
REPEATED = (
    "a parameter stands more than once in a group, and would be stepped as often: with noise, sums "
    "over elements, a control or gradients within the step, give each once"
)

clock_of = itemgetter(CLOCK)

Numbers = MutableMapping[str, Any]
Places = Sequence[dict[str, Any]]


class Moving(NamedTuple):
    """What moves in a step.

    Attributes:
        group: Of `param_groups`.
        numbers: Where time, number of steps and scalars are kept: the group, or a clock.
        places: `optimizer.state` of each parameter.
        parameters: Those that have a gradient.
        gradients: Before their sign.
        elements: Their numbers.
    """

    group: dict[str, Any]
    numbers: Numbers
    places: Places
    parameters: list[Tensor]
    gradients: list[Tensor]
    elements: Elements

    def of(self, chosen: Sequence[int], numbers: Numbers) -> "Moving":
        """Some of the parameters, with numbers of their own."""
        if len(chosen) == len(self.parameters):
            return Moving(self.group, numbers, *self[2:])
        return Moving(
            self.group,
            numbers,
            [self.places[i] for i in chosen],
            [self.parameters[i] for i in chosen],
            [self.gradients[i] for i in chosen],
            self.elements.of(chosen, self.parameters),
        )


@lru_cache(maxsize=256)
def is_separable(equations: Equations) -> bool:
    """Whether parameters can step apart: nothing is summed, no scalar follows loss or noise."""
    terms, scalars = equations.terms, {*equations.scalars}
    formulas = [*(f for term in terms for f in term.formulas), *equations.start.values()]
    of_scalars = [term for term in terms if scalars & {*term.moved}]
    return not (
        any(formula.has(total) for formula in formulas)
        or any(formula.has(LOSS) for term in of_scalars for formula in term.drift.values())
        or any(scalars & {*term.diffusion} for term in of_scalars)
    )


@lru_cache(maxsize=256)
def has_clocks(equations: Equations) -> bool:
    """Whether parameters have clocks of their own: they can, and a step depends on them."""
    timed = any(formula.has(t) for term in equations.terms for formula in term.formulas)
    return is_separable(equations) and (timed or bool(equations.scalars))


def numbers_of(group: dict[str, Any], places: Iterable[dict[str, Any]]) -> Numbers:
    """Time, number of steps and scalars of a group; of its first parameter, if each has its own."""
    return next((place[CLOCK] for place in places if CLOCK in place), group)


def by_clock(moving: Moving, scalars: Sequence[str]) -> Iterator[Moving]:
    """What moves, apart where clocks differ; to be stepped one after the other.

    Args:
        moving: Of one group.
        scalars: Of its flow; in the group stand their values at the start, where given.
    """
    group, places = moving.group, moving.places
    stepped = []
    for known, chosen in _alike(places):
        clock = dict(known or {name: group[name] for name in scalars if name in group})
        yield moving.of(chosen, clock)
        # Another one, as others may hold the last that do not move now, or are in another group.
        for place in chosen:
            places[place][CLOCK] = clock
        stepped.append((clock["step"], clock["time"]))
    # Where users look: of those that have taken most steps.
    group["step"], group["time"] = max(stepped)


def _alike(places: Places) -> Iterable[tuple[Numbers | None, Sequence[int]]]:
    """Clocks, and which parameters have them."""
    clock = places[0].get(CLOCK)
    if clock is not None and _all_have(places, clock):
        return [(clock, range(len(places)))]
    clocks = [place.get(CLOCK) for place in places]
    values = {id(clock): clock and tuple(sorted(clock.items())) for clock in clocks}
    alike: dict[tuple | None, list[int]] = defaultdict(list)
    for place, clock in enumerate(clocks):
        alike[values[id(clock)]].append(place)
    return [(clocks[chosen[0]], chosen) for chosen in alike.values()]


def _all_have(places: Places, clock: Numbers) -> bool:
    try:
        # Thousands of parameters are asked at every step: no Python for each.
        return all(map(is_, map(clock_of, places), repeat(clock)))
    except KeyError:
        return False


def apart(places: Iterable[object]) -> None:
    """Gives each parameter a clock that no other holds: checkpoints are loaded over it."""
    for place in places:
        if isinstance(place, dict) and CLOCK in place:
            place[CLOCK] = dict(place[CLOCK])


def to_clocks(
    group: dict[str, Any], places: Sequence[dict[str, Any]], scalars: Sequence[str]
) -> None:
    """Makes clocks of numbers that were loaded for a group, and were those of all of it."""
    names = [name for name in ("step", "time", *scalars) if name in group]
    older = [place for place in places if place and CLOCK not in place]
    for place in older if "step" in group else ():
        place[CLOCK] = {name: group[name] for name in names}
    for name in scalars if older else ():
        group.pop(name, None)
    if clocks := [place[CLOCK] for place in places if CLOCK in place]:
        group["step"], group["time"] = max((clock["step"], clock["time"]) for clock in clocks)


def to_group(
    group: dict[str, Any], places: Sequence[dict[str, Any]], scalars: Sequence[str]
) -> None:
    """Makes numbers of a group of clocks that were loaded, those of most steps."""
    if clocks := [place.pop(CLOCK) for place in places if CLOCK in place]:
        latest = max(clocks, key=itemgetter("step"))
        group.update({n: latest[n] for n in ("step", "time", *scalars) if n in latest})


def is_repeated(parameters: Sequence[Tensor]) -> bool:
    """Whether a parameter stands in a list more than once."""
    return len(set(map(id, parameters))) < len(parameters)


def by_occurrence(moving: Moving) -> Iterator[Moving]:
    """What moves, the second mention of a parameter after the first, and so on, as in torch."""
    seen: dict[int, int] = defaultdict(int)
    rounds: dict[int, list[int]] = defaultdict(list)
    for place, parameter in enumerate(moving.parameters):
        rounds[seen[id(parameter)]].append(place)
        seen[id(parameter)] += 1
    for number, chosen in rounds.items():
        # A second mention is no second step of the group.
        numbers = dict(moving.group) if number else moving.numbers
        yield moving.of(chosen, numbers)


def check_repeated(flow: EquationFlow) -> None:
    """Raises `CompatibilityError` where a parameter that stands twice can not be stepped twice."""
    if flow.noisy or not is_separable(flow.equations):
        raise CompatibilityError(REPEATED)
