"""Butcher tableaux that check themselves: order conditions hold exactly, in fractions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from math import prod

from flowopt.errors import DefinitionError

Tree = tuple  # a rooted tree is the sorted tuple of its subtrees; () is a single node


def fractions(*values: str | int) -> tuple[Fraction, ...]:
    """Exact fractions from text such as "35/384"."""
    return tuple(Fraction(value) for value in values)


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method.

    Attributes:
        name: For messages and tables.
        order: Claimed order; checked when built.
        weights: b, one per stage.
        stages: Row i of the matrix A: i coefficients, for i = 0 … s − 1.
        reference: Where it comes from.
        embedded: Weights of a second solution from the same stages, for error estimates.
        embedded_order: Its claimed order; checked when built.

    Raises:
        DefinitionError: The shape is wrong or an order condition fails.
    """

    name: str
    order: int
    weights: tuple[Fraction, ...]
    stages: tuple[tuple[Fraction, ...], ...]
    reference: str
    embedded: tuple[Fraction, ...] = ()
    embedded_order: int = 0
    nodes: tuple[Fraction, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Checks shape and order conditions."""
        if [len(row) for row in self.stages] != list(range(len(self.weights))):
            raise DefinitionError(
                f"tableau {self.name!r}: row i of an explicit method has i coefficients"
            )
        object.__setattr__(self, "nodes", tuple(sum(row, Fraction(0)) for row in self.stages))
        self._check_order(self.weights, self.order)
        if self.embedded:
            self._check_order(self.embedded, self.embedded_order)

    def _check_order(self, weights: tuple[Fraction, ...], claimed: int) -> None:
        for order in range(1, claimed + 1):
            for tree in rooted_trees(order):
                weight = sum(b * x for b, x in zip(weights, self._elementary(tree), strict=True))
                if weight * density(tree) != 1:
                    raise DefinitionError(
                        f"tableau {self.name!r} misses an order-{order} condition (tree {tree}): "
                        f"{weight} instead of {Fraction(1, density(tree))}"
                    )

    @property
    def reuses_last_stage(self) -> bool:
        """Whether the last stage is evaluated at the end of the step (first same as last)."""
        return len(self.weights) > 1 and (*self.stages[-1], Fraction(0)) == self.weights

    def _elementary(self, tree: Tree) -> list[Fraction]:
        """Per stage, the product over subtrees of A applied to theirs."""
        branches = [self._elementary(branch) for branch in tree]
        return [
            prod(
                (
                    sum((a * x for a, x in zip(row, branch, strict=False)), Fraction(0))
                    for branch in branches
                ),
                start=Fraction(1),
            )
            for row in self.stages
        ]


@cache
def rooted_trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with `order` nodes."""
    return tuple(sorted({tuple(sorted(forest)) for forest in _forests(order - 1, order - 1)}))


def _forests(nodes: int, largest: int) -> Iterator[tuple[Tree, ...]]:
    """All multisets of rooted trees with `nodes` nodes in all, no tree larger than `largest`."""
    if nodes == 0:
        yield ()
        return
    for size in range(min(nodes, largest), 0, -1):
        for copies in range(nodes // size, 0, -1):
            for chosen in combinations_with_replacement(rooted_trees(size), copies):
                for rest in _forests(nodes - copies * size, size - 1):
                    yield (*chosen, *rest)


def _size(tree: Tree) -> int:
    return 1 + sum(_size(branch) for branch in tree)


def density(tree: Tree) -> int:
    """γ(tree): the product of the sizes of all its subtrees.

    Reference:
        Butcher 2016, Numerical Methods for Ordinary Differential Equations, section 304.
    """
    return _size(tree) * prod(density(branch) for branch in tree)


def _tableau(
    name: str,
    order: int,
    weights: Sequence,
    rows: Sequence,
    reference: str,
    embedded: Sequence = (),
    embedded_order: int = 0,
) -> Tableau:
    return Tableau(
        name,
        order,
        fractions(*weights),
        tuple(fractions(*row) for row in rows),
        reference,
        fractions(*embedded),
        embedded_order,
    )


TABLEAUX = {
    tableau.name: tableau
    for tableau in (
        _tableau(
            "heun", 2, ["1/2", "1/2"], [[], [1]], "Heun 1900, Z. Math. Phys. 45, 23", [1, 0], 1
        ),
        _tableau("midpoint", 2, [0, 1], [[], ["1/2"]], "Runge 1895, Math. Ann. 46, 167"),
        _tableau(
            "rk4",
            4,
            ["1/6", "1/3", "1/3", "1/6"],
            [[], ["1/2"], [0, "1/2"], [0, 0, 1]],
            "Kutta 1901, Z. Math. Phys. 46, 435",
        ),
        _tableau(
            "dopri5",
            5,
            ["35/384", 0, "500/1113", "125/192", "-2187/6784", "11/84", 0],
            [
                [],
                ["1/5"],
                ["3/40", "9/40"],
                ["44/45", "-56/15", "32/9"],
                ["19372/6561", "-25360/2187", "64448/6561", "-212/729"],
                ["9017/3168", "-355/33", "46732/5247", "49/176", "-5103/18656"],
                ["35/384", 0, "500/1113", "125/192", "-2187/6784", "11/84"],
            ],
            "Dormand & Prince 1980, J. Comput. Appl. Math. 6(1), 19",
            ["5179/57600", 0, "7571/16695", "393/640", "-92097/339200", "187/2100", "1/40"],
            4,
        ),
    )
}
