"""Butcher tableaux refuse coefficients that are wrong."""

from fractions import Fraction

import numpy
import pytest
from scipy.integrate import RK23, RK45

import flowopt as fo
from flowopt.schemes import TABLEAUX
from flowopt.schemes.tableau import density, rooted_trees


def changed(tableau, *, stage=None, column, by=Fraction(1, 1000)):
    """A tableau with one coefficient moved."""
    weights = list(tableau.weights)
    stages = [list(row) for row in tableau.stages]
    row = weights if stage is None else stages[stage]
    row[column] += by
    return fo.Tableau(
        tableau.name,
        tableau.order,
        tuple(weights),
        tuple(map(tuple, stages)),
        "a copy",
        tolerance=tableau.tolerance,
    )


COEFFICIENTS = [
    (name, stage, column)
    for name, tableau in TABLEAUX.items()
    for stage, row in (*enumerate(tableau.stages), (None, tableau.weights))
    for column in range(len(row))
    # A last stage of weight 0 serves the next step only.
    if not (stage == len(tableau.stages) - 1 and tableau.reuses_last_stage)
]


@pytest.mark.parametrize(("name", "stage", "column"), COEFFICIENTS)
def test_any_wrong_coefficient_is_refused(name, stage, column):
    with pytest.raises(fo.DefinitionError, match=r"misses an order-\d condition \(tree \("):
        changed(TABLEAUX[name], stage=stage, column=column)


def test_the_failing_tree_is_named_with_what_it_gives():
    half = Fraction(1, 2)
    with pytest.raises(fo.DefinitionError, match=r"order-2 condition \(tree \(\(\),\)\): 1/4 inst"):
        fo.Tableau("half", 2, (half, half), ((), (half,)), "none")


def test_an_order_that_is_too_high_is_refused():
    heun = TABLEAUX["heun"]
    with pytest.raises(fo.DefinitionError, match="misses an order-3 condition"):
        fo.Tableau("heun", 3, heun.weights, heun.stages, heun.reference)


def test_a_matrix_that_is_not_strictly_lower_triangular_is_refused():
    half = Fraction(1, 2)
    with pytest.raises(fo.DefinitionError, match="row i of an explicit method has i coefficients"):
        fo.Tableau("implicit", 1, (half, half), ((half,), (half,)), "none")


def test_rooted_trees_are_as_many_as_cayley_counted():
    assert [len(rooted_trees(order)) for order in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


def test_the_density_of_a_tall_tree_is_a_factorial_and_of_a_bush_its_size():
    assert density(((((),),),)) == 24
    assert density(((), (), ())) == 4


def test_pairs_for_error_control_evaluate_their_last_stage_at_the_end_of_the_step():
    reusing = [name for name, t in TABLEAUX.items() if t.reuses_last_stage]
    assert reusing == ["bosh3", "dopri5", "tsit5"]


@pytest.mark.parametrize(("name", "theirs"), [("dopri5", RK45), ("bosh3", RK23)])
def test_a_pair_has_the_coefficients_of_scipy(name, theirs):
    ours, count = TABLEAUX[name], theirs.n_stages
    stages = [[float(x) for x in row] for row in ours.stages[1:count]]
    assert stages == [list(row[: i + 1]) for i, row in enumerate(theirs.A[1:])]
    assert [float(x) for x in ours.weights[:count]] == list(theirs.B)
    errors = [float(a - b) for a, b in zip(ours.weights, ours.embedded, strict=True)]
    numpy.testing.assert_allclose(numpy.abs(errors), numpy.abs(theirs.E), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", TABLEAUX)
def test_a_copy_without_a_change_is_accepted(name):
    changed(TABLEAUX[name], stage=1, column=0, by=0)


def test_a_tableau_of_ones_own_steps():
    third = Fraction(1, 3)
    ralston = fo.Tableau(
        "ralston", 2, (third / 4 * 3, 1 - third / 4 * 3), ((), (2 * third,)), "Ralston 1962"
    )
    assert fo.RungeKutta(ralston).order(fo.flows.gradient_flow()) == 2.0
