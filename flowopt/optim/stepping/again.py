"""A step like the one before: what has not changed since then is not derived again.

A step by a kernel is short, and what leads to it is long: after each step the processor's caches
hold numbers of the network and no code, so every question that is asked costs more than it seems.
Most have the answer of the last step. Here all that an answer depends on is compared with what it
was, and if it is the same, gradients are all that is new.
"""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from functools import partial
from itertools import repeat
from math import nan
from operator import is_, itemgetter
from typing import Any, NamedTuple

from torch import Tensor

from flowopt.kernels.update import Update
from flowopt.optim.stepping.cohorts import Moving, clock_of
from flowopt.optim.tensors import Tensors
from flowopt.optim.updates import Prepared, is_plain

Group = dict[str, Any]

# Of a group, besides what its flow is made of.
OPTIONS = ("maximize", "seed", "error_if_nonfinite")


class Done(NamedTuple):
    """What a kernel has stepped.

    Attributes:
        prepared: How.
        moving: What.
        work: Tensors of one type each, and their kernels.
    """

    prepared: Prepared
    moving: Moving
    work: Sequence[tuple[Tensors, Update]]


class Again:
    """Steps of an optimizer like its last one; all of it can be made again."""

    def __init__(self):
        """See the class."""
        self._groups: list[_Group] = []
        self._places: list[dict[str, Any]] = []
        self._tensors: list[Tensors] = []

    def remember(
        self,
        groups: Sequence[Group],
        state: MutableMapping[Tensor, dict[str, Any]],
        done: Sequence[Done | None],
        settings: Callable[[int], Iterable[str]],
    ) -> None:
        """Gets ready for a step like the last one, if that was like the one before it.

        Args:
            groups: `param_groups`.
            state: `optimizer.state`.
            done: What the last step did.
            settings: Place of a group → what its flow is made of, by names in the group.
        """
        known = [each for each in done if each is not None]
        before, self._tensors = self._tensors, [each.work[0][0] for each in known]
        self._groups = []
        if len(known) != len(groups) or before != self._tensors:
            return
        names = [(*settings(place), *OPTIONS) for place in range(len(groups))]
        if all(map(_is_simple, groups, known, names)):
            self._places = list(state.values())
            self._groups = list(map(_Group, known, names))

    def step(
        self,
        groups: Sequence[Group],
        state: MutableMapping[Tensor, dict[str, Any]],
        prepare: Callable[[int], Prepared],
    ) -> bool:
        """Takes a step if it is like the one before, apart from gradients and numbers.

        Args:
            groups: `param_groups`.
            state: `optimizer.state`.
            prepare: Place of a group → how it is stepped, with the numbers that it has now.

        Returns:
            Whether it was taken; if not, nothing has moved.
        """
        known, places = self._groups, self._places
        if (
            not known
            or len(groups) != len(known)
            or len(state) != len(places)
            or not all(map(is_, state.values(), places))
            # A step of zero length without a state may be a checkpoint's.
            or (not places and all(group["lr"] == 0 for group in groups))
        ):
            return False
        # Nothing may be given back to memory before all groups are stepped.
        held = []
        for place, (each, group) in enumerate(zip(known, groups, strict=True)):
            found = each.found(partial(prepare, place)) if group is each.group else None
            if found is None:
                self._groups = []
                return False
            held.append(found)
        for each in known:
            each.step()
        return True


def _is_simple(group: Group, done: Done, names: Sequence[str]) -> bool:
    """Whether a group was stepped whole, by one kernel that asks for nothing else."""
    prepared, moving, work = done
    return (
        moving.group is group
        and moving.parameters is group["params"]
        and not group["error_if_nonfinite"]
        and not prepared.uses_loss
        and all(is_plain(group[name]) for name in names)
        and len(work) == 1
        and not work[0][1].passes
        and not work[0][1].captured
        and work[0][0].remember(work[0][1])
    )


class _Group:
    """A group as it was at the last step.

    Args:
        done: What the step did.
        names: Of what it depends on in the group.

    Attributes:
        group: Of `param_groups`.
    """

    def __init__(self, done: Done, names: Sequence[str]):
        """See the class."""
        prepared, moving, ((self._tensors, self._update),) = done
        self.group, self._numbers, self._places = moving.group, moving.numbers, moving.places
        self._listed, self._parameters = moving.parameters, tuple(moving.parameters)
        self._asked, self._options = itemgetter(*names), len(OPTIONS)
        self._answers = self._asked(self.group)
        self._plan, self._variables = prepared.plan, prepared.names
        self._shared = (*prepared.scalars, "time", "step")
        self._settings = prepared.settings
        # What a kernel is given after its settings: a loss that it does not need, seed, and the
        # number of the first element.
        self._rest = nan, self.group["seed"] % 2**63, moving.elements.first

    def found(self, prepare: Callable[[], Prepared]) -> Sequence[list[Tensor]] | None:
        """Looks where gradients lie, if nothing but them and numbers has changed.

        Returns:
            What is to be held until it is stepped, else None.
        """
        group, listed, places, numbers = self.group, self._listed, self._places, self._numbers
        try:
            answers = self._asked(group)
            if (
                # Equal numbers may be another number, as float32(0.1) is for torch and numpy.
                not (all(map(is_, answers, self._answers)) or self._takes(answers, prepare))
                or group["params"] is not listed
                or len(listed) != len(self._parameters)
                or not all(map(is_, listed, self._parameters))
                # Of a checkpoint's step that was not loaded over.
                or group["time"] != group["time"]
                or (
                    numbers is not group
                    and not all(map(is_, map(clock_of, places), repeat(numbers)))
                )
            ):
                return None
            kept = [[own[name] for own in places] for name in self._variables]
        except KeyError:
            return None
        return self._tensors.follow([listed, *kept])

    def _takes(self, answers: tuple, prepare: Callable[[], Prepared]) -> bool:
        """Takes numbers that have changed; whether nothing else has."""
        if answers[-self._options :] != self._answers[-self._options :]:
            return False
        if not all(map(is_plain, answers)):
            return False
        prepared, known = prepare(), self._plan
        plan = prepared.plan
        # Some numbers choose the equation, as a weight decay that was zero.
        if plan.flow.equations is not known.flow.equations or plan.scheme is not known.scheme:
            return False
        self._settings, self._answers = prepared.settings, answers
        return True

    def step(self) -> None:
        """Steps what was looked at."""
        group, numbers, shared = self.group, self._numbers, self._shared
        given = [*map(numbers.__getitem__, shared), *self._settings, *self._rest]
        after = self._tensors.rerun(self._update, given)
        numbers.update(zip(shared, after, strict=False))
        if numbers is not group:
            group["step"], group["time"] = numbers["step"], numbers["time"]
