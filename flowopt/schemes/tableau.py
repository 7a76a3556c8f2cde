"""Butcher tableaux that check themselves: order conditions hold exactly, in fractions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, zip_longest
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
        interpolant: Per stage the coefficients of x, x², … of its weight at the fraction x of the
            step; empty for none.
        interpolant_order: Its claimed order; checked when built.
        tolerance: By which conditions may fail: zero for fractions, for decimals their digits.

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
    interpolant: tuple[tuple[Fraction, ...], ...] = ()
    interpolant_order: int = 0
    tolerance: Fraction = Fraction(0)
    nodes: tuple[Fraction, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Checks shape and order conditions."""
        if [len(row) for row in self.stages] != list(range(len(self.weights))):
            raise DefinitionError(
                f"tableau {self.name!r}: row i of an explicit method has i coefficients"
            )
        object.__setattr__(self, "nodes", tuple(sum(row, Fraction(0)) for row in self.stages))
        self._check_order("", self.weights, self.order)
        if self.embedded:
            self._check_order("embedded ", self.embedded, self.embedded_order)
        if self.interpolant:
            self._check_interpolant()

    def _check_order(self, which: str, weights: tuple[Fraction, ...], claimed: int) -> None:
        for order in range(1, claimed + 1):
            for tree in rooted_trees(order):
                self._check_tree(f"{which}order-{order}", tree, weights, Fraction(1, density(tree)))

    def _check_interpolant(self) -> None:
        """Conditions of x¹ … xⁿ: the power of a tree's size has its weight, all others none."""
        ends = [sum(row, Fraction(0)) for row in self.interpolant]
        difference = max(abs(a - b) for a, b in zip(ends, self.weights, strict=True))
        if difference > self.tolerance:
            raise DefinitionError(
                f"tableau {self.name!r}: the interpolant ends {float(difference):.1e} off the step"
            )
        powers = list(zip_longest(*self.interpolant, fillvalue=Fraction(0)))
        for order in range(1, self.interpolant_order + 1):
            for tree in rooted_trees(order):
                for power, weights in enumerate(powers, start=1):
                    expected = Fraction(int(power == order), density(tree))
                    name = f"order-{order} (x to the power {power})"
                    self._check_tree(name, tree, weights, expected)

    def _check_tree(
        self, which: str, tree: Tree, weights: tuple[Fraction, ...], expected: Fraction
    ) -> None:
        weight = sum(b * x for b, x in zip(weights, self._elementary(tree), strict=True))
        if abs(weight - expected) > self.tolerance:
            raise DefinitionError(
                f"tableau {self.name!r} misses an {which} condition (tree {tree}): "
                f"{weight} instead of {expected}"
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
