"""Flows made of flows: one more term, one less."""

import pytest
import torch

import flowopt as fo
from flowopt.symbols import g, p, symbol, theta

START = torch.tensor([1.0, -2.0], dtype=torch.float64)
QUADRATIC = fo.problems.quadratic([1.0, 4.0])
HEAVY_BALL = fo.flows.heavy_ball(friction=0.5)


def end(flow, word):
    return fo.integrate(
        flow, fo.Splitting(word), QUADRATIC, START, step_size=0.1, steps=20
    ).position


def test_a_term_is_added_as_if_it_had_been_written():
    decay = symbol("decay")
    added = HEAVY_BALL.plus(fo.Term("W", drift={theta: -decay * theta}), decay=0.2)
    written = fo.Flow.from_text(
        """
        O: dp/dt = -friction*p
        B: dp/dt = -g
        A: dtheta/dt = p
        W: dtheta/dt = -decay*theta
        """,
        friction=0.5,
        decay=0.2,
    )
    assert torch.equal(end(added, "OBAW"), end(written, "OBAW"))
    assert str(added.energy_rate("mechanical")) != str(HEAVY_BALL.energy_rate("mechanical"))


def test_a_term_without_new_names_is_added_by_a_plus_sign():
    assert (HEAVY_BALL + fo.Term("W", drift={theta: -0.2 * theta})).letters == ("O", "B", "A", "W")


def test_a_term_taken_away_is_one_that_was_never_there():
    added = HEAVY_BALL + fo.Term("W", drift={theta: -0.2 * theta})
    assert added.without("W").equations == HEAVY_BALL.equations
    frictionless = HEAVY_BALL.without("O")
    assert frictionless.hyperparameters == {}
    assert frictionless.energy_rate("mechanical") == 0


def test_what_only_a_taken_term_moved_goes_with_it():
    averaged = fo.Flow(
        fo.Equations(
            fo.Term("A", drift={theta: -g}),
            fo.Term("M", drift={p: theta - p}),
            energies={"spread": p**2, "loss": symbol("L")},
            start={p: theta},
        )
    )
    plain = averaged.without("M")
    assert plain.variables == ("theta",)
    assert plain.energies == ("loss",)


def test_rates_per_step_stay_so():
    flow = fo.classic.sgd(lr=0.1, momentum=0.9).flow
    assert (flow + fo.Term("W", drift={theta: -theta})).per_step == flow.per_step


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HEAVY_BALL.without("X"), r"no letter 'X': the flow has \['O', 'B', 'A'\]"),
        (lambda: HEAVY_BALL.without("A"), "no term moves theta"),
        (lambda: fo.flows.adam().without("V"), r"only letter 'V' moves \['v'\]"),
        (lambda: HEAVY_BALL + 3, "takes one more Term, got int"),
        (lambda: HEAVY_BALL + fo.Term("A", drift={theta: -theta}), "names two terms"),
        (
            lambda: HEAVY_BALL + fo.Term("W", drift={theta: -symbol("decay") * theta}),
            r"brings hyperparameters \['decay'\] without values: use flow.plus\(term, decay=",
        ),
        (lambda: HEAVY_BALL.plus(fo.Term("W", drift={theta: -theta}), mass=1.0), "mass"),
    ],
)
def test_what_makes_no_flow_is_refused(make, message):
    with pytest.raises(fo.DefinitionError, match=message):
        make()
