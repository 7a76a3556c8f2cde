"""Groups with equations of their own."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flowopt.core.interfaces import Scheme
from flowopt.core.partition import Partition
from flowopt.core.word import groups_of, is_word
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow, PartitionedFlow
from flowopt.flows.partitioned.meanings import checked_meanings, own_groups, own_word
from flowopt.optim.checks import check_equations, check_one_number
from flowopt.schemes import Splitting

# Of a group, taken out of it: state dicts hold numbers.
FLOW, LETTERS = "flow", "letters"


class Equation(NamedTuple):
    """What steps a group.

    Attributes:
        flow: With the values that the group had when it was added.
        scheme: Of the group by itself: a word's letters as the group's flow has them.
        letters: What letters of the optimizer's word mean, where that was given.
        own: Whether flow or letters are the group's own.
    """

    flow: EquationFlow
    scheme: Scheme
    letters: Mapping[str, str]
    own: bool

    def strip(self, group: dict[str, Any], default: EquationFlow) -> None:
        """Takes out of a group what the optimizer's flow has and its own has not."""
        for name in {*default.hyperparameters} - {*self.flow.hyperparameters}:
            group.pop(name, None)


def taken_equation(
    param_group: dict[str, Any], flow: EquationFlow, scheme: Scheme
) -> tuple[dict[str, Any], Equation]:
    """A group without flow and letters, its flow's values in it; and its equation.

    Args:
        param_group: As the user gave it.
        flow: Of groups without one.
        scheme: Of the optimizer.

    Raises:
        PartitionError: Letters have no meaning, or several.
        CompatibilityError: The flow is none, or does not fit.
    """
    if not {FLOW, LETTERS} & {*param_group}:
        return param_group, Equation(flow, scheme, {}, False)
    group = {name: v for name, v in param_group.items() if name not in (FLOW, LETTERS)}
    own, letters = param_group.get(FLOW, flow), param_group.get(LETTERS) or {}
    check_equations(own)
    alone = _scheme_alone(own, letters, scheme)
    alone.check(own)
    for name, value in own.hyperparameters.items():
        check_one_number(name, value)
        group.setdefault(name, value.item())
    return group, Equation(own, alone, dict(letters), True)


def _scheme_alone(flow: EquationFlow, letters: Mapping[str, str], scheme: Scheme) -> Scheme:
    """The scheme that a group by itself would have."""
    if not isinstance(scheme, Splitting):
        if letters:
            raise CompatibilityError(
                f"letters={dict(letters)} of a group are those of a word, and {scheme!r} has none"
            )
        return scheme
    meanings = checked_meanings("of the group", flow, letters)
    word = own_word(meanings, groups_of(scheme.word))
    if not is_word(word):
        raise CompatibilityError(
            f"the letters of {scheme!r} mean nothing to flow {flow.name!r} with letters "
            f"{list(flow.letters)}: say what they mean, as in 'letters': {{'B': {word!r}}}"
        )
    maps = {own: kind for group, kind in scheme.maps.items() for own in own_groups(meanings, group)}
    return Splitting(word, maps=maps)


def missing_letters(equations: Sequence[Equation], scheme: Scheme) -> list[str]:
    """Letters of a word that mean something to no group; none where a group is as all are."""
    if not isinstance(scheme, Splitting) or not all(known.own for known in equations):
        return []
    known = together(equations).letters if equations else ()
    return [letter for group in groups_of(scheme.word) for letter in group if letter not in known]


def check_letters(equations: Sequence[Equation], scheme: Scheme) -> None:
    """Raises `CompatibilityError` where letters of a word mean something to no group."""
    if missing := sorted({*missing_letters(equations, scheme)}):
        raise CompatibilityError(
            f"letters {missing} of {scheme!r} mean something to no group: leave them out of the "
            "word, or say in a group's 'letters' what they mean"
        )


def together(equations: Sequence[Equation]) -> PartitionedFlow:
    """What groups are as one flow, whatever their parameters; groups that are alike count once."""
    kinds = {(known.flow.definition, *known.letters.items()): known for known in equations}
    return partitioned([(str(place),) for place in range(len(kinds))], [*kinds.values()])


def partitioned(leaves: Sequence[Sequence[str]], equations: Sequence[Equation]) -> PartitionedFlow:
    """Groups as the blocks of one flow, each at its own pace and time.

    Args:
        leaves: Names of each group's parameters.
        equations: Of the groups.
    """
    names = [f"group_{place}" for place in range(len(equations))]
    blocks = dict(zip(names, map(list, leaves), strict=True))
    own = dict(zip(names, equations, strict=True))
    return PartitionedFlow(
        Partition([leaf for group in leaves for leaf in group], blocks),
        {name: equation.flow for name, equation in own.items()},
        letters={name: equation.letters for name, equation in own.items()},
        pace=dict.fromkeys(names, 1.0),
        clock=dict.fromkeys(names, 0.0),
    )
