"""Wrong use: a flowopt error that says what came, what was expected and what to do."""

import math
import traceback

import pytest
import torch

import flowopt as fo
from tests.reference.states import Loss

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([1.0, 2.0], dtype=torch.float64)
LANGEVIN = fo.flows.langevin(friction=1.0, temperature=0.1)


def run(flow=None, scheme=None, problem=QUADRATIC, start=START, **settings):
    step = {} if "control" in settings else {"step_size": 0.1}
    settings = {**step, "steps": 5, **settings}
    return fo.integrate(
        flow or fo.flows.gradient_flow(), scheme or fo.Euler(), problem, start, **settings
    )


@pytest.mark.parametrize("word", ["", "baoab", "BAO AB", "BAO1", "BÄO", None, 5, "BAO" * 200])
def test_a_word_is_made_of_capital_letters(word):
    with pytest.raises(
        fo.CompatibilityError, match="a splitting word is made of up to 512 capital"
    ):
        fo.Splitting(word)


def test_a_letter_that_the_flow_has_not_is_named():
    with pytest.raises(fo.CompatibilityError, match=r"the flow has no \['X'\]"):
        run(LANGEVIN, fo.Splitting("BAOABX"))


def test_a_letter_that_the_word_leaves_out_is_named():
    with pytest.raises(fo.CompatibilityError, match=r"the word leaves out \['O'\]"):
        run(LANGEVIN, fo.Splitting("BAAB"))


@pytest.mark.parametrize("maps", [{"X": "euler"}, {"A": "implicit"}])
def test_maps_name_letters_of_the_word_and_kinds_that_there_are(maps):
    with pytest.raises(fo.CompatibilityError, match="one of 'exact', 'frozen', 'euler'"):
        fo.Splitting("BA", maps=maps)


def test_an_exact_map_is_refused_where_there_is_none():
    with pytest.raises(fo.CompatibilityError, match="letter 'A' has no exact map"):
        run(scheme=fo.Splitting("A", maps={"A": "exact"}))


def test_a_letter_that_is_nonlinear_in_itself_names_the_remedies():
    flow = fo.Flow.from_text("A: dtheta/dt = -theta**3")
    with pytest.raises(fo.CompatibilityError, match="'euler'}\\) or a Runge-Kutta scheme"):
        run(flow, fo.Splitting("A"))
    assert run(flow, fo.Splitting("A", maps={"A": "euler"})).status == fo.Status.STEPS_TAKEN


@pytest.mark.parametrize(("name", "hint"), [("rk5", "did you mean 'rk4'"), ("foo", "known are")])
def test_an_unknown_runge_kutta_method_is_refused_with_the_nearest(name, hint):
    with pytest.raises(fo.CompatibilityError, match=hint):
        fo.RungeKutta(name)


@pytest.mark.parametrize("scheme", [fo.Euler(), fo.RungeKutta("rk4")], ids=repr)
@pytest.mark.parametrize(
    ("flow", "match"),
    [
        (LANGEVIN, r"has noise: use EulerMaruyama\(\) or a splitting word over its letters"),
        (fo.classic.sgd(momentum=0.9).flow, r"use flow.at_step_size\(h\)"),
    ],
    ids=["noise", "per step"],
)
def test_a_flow_that_a_drift_scheme_can_not_step_is_refused(scheme, flow, match):
    with pytest.raises(fo.CompatibilityError, match=match):
        run(flow, scheme)


@pytest.mark.parametrize("ask", [lambda f: f.source("Q"), lambda f: f.kind("Q")])
def test_an_unknown_letter_of_a_flow_is_refused_with_its_letters(ask):
    with pytest.raises(fo.CompatibilityError, match=r"no letter 'Q': it has \['O', 'B', 'A'\]"):
        ask(fo.flows.heavy_ball())


def test_an_unknown_energy_is_refused_with_those_there_are():
    with pytest.raises(fo.DefinitionError, match=r"no energy 'total': the flow declares \['mech"):
        fo.flows.heavy_ball().energy_rate("total")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ("A: dtheta/dt = -g\nenergy e: g**2", "sum over elements without g"),
        ("A: dtheta/dt = -g\nenergy e: L**2", "its rate is not derived"),
        ("A: dtheta/dt = -g\nenergy e: total(theta**2)", "its rate is not derived"),
    ],
)
def test_an_energy_rate_that_is_not_derived_says_so(lines, match):
    with pytest.raises(fo.DefinitionError, match=match):
        fo.Flow.from_text(lines).energy_rate("e")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({}, r"missing: \['friction'\]"),
        ({"friction": 1.0, "mass": 2.0}, r"unknown: \['mass'\]"),
        ({"friction": math.nan}, "friction is not a number"),
        ({"friction": "1"}, "is no real number"),
    ],
)
def test_hyperparameters_are_exactly_those_of_the_equations(values, match):
    equations = fo.flows.heavy_ball().equations
    with pytest.raises(fo.DefinitionError, match=match):
        fo.Flow(equations, **values)


def test_an_unknown_hyperparameter_can_not_be_changed():
    with pytest.raises(fo.DefinitionError, match=r"unknown: \['mass'\]"):
        fo.flows.heavy_ball().with_hyperparameters(mass=2.0)


def test_hyperparameters_of_a_flow_are_given_by_keyword():
    with pytest.raises(TypeError):
        fo.flows.langevin(1.0, 0.1)


@pytest.mark.parametrize("curvatures", [[], [[1.0, 2.0]], [[1.0, 2.0], [0.0, 1.0]], 3.0])
def test_a_quadratic_has_a_vector_or_a_symmetric_matrix(curvatures):
    with pytest.raises(fo.DataError, match="give a vector or a symmetric matrix"):
        fo.problems.quadratic(curvatures)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"step_size": -0.1}, fo.CompatibilityError, "finite and not negative, got -0.1"),
        ({"step_size": math.nan}, fo.CompatibilityError, "finite and not negative, got nan"),
        ({"step_size": math.inf}, fo.CompatibilityError, "finite and not negative, got inf"),
        (
            {"step_size": torch.tensor([0.1, 0.2])},
            fo.CompatibilityError,
            r"step_size has shape \(2,\), the batch has shape \(\)",
        ),
        ({"step_size": None}, fo.ConfigurationError, "give either step_size or control"),
        (
            {"control": fo.Constant(0.1), "step_size": 0.1},
            fo.ConfigurationError,
            "give either step_size or control",
        ),
        ({"steps": None}, fo.ConfigurationError, "give steps .*, duration .* or both"),
        ({"steps": -1}, fo.ConfigurationError, "a whole number that is not negative, got -1"),
        ({"steps": 2.5}, fo.ConfigurationError, "a whole number that is not negative, got 2.5"),
        ({"steps": True}, fo.ConfigurationError, "a whole number"),
        ({"duration": 0.0}, fo.ConfigurationError, "positive and finite, got 0.0"),
        ({"duration": -1.0}, fo.ConfigurationError, "positive and finite, got -1.0"),
        ({"duration": math.nan}, fo.ConfigurationError, "positive and finite, got nan"),
        (
            {"duration": 1.0, "steps": None, "step_size": 0.0},
            fo.ConfigurationError,
            "give a positive step_size, or steps too",
        ),
        (
            {"control": fo.Schedule(lambda step: -step)},
            fo.CompatibilityError,
            "gives -1.0 at step 1: a step size is",
        ),
        ({"stop": 1e-6}, fo.ConfigurationError, "give flowopt.stop.gradient"),
        ({"record": "loss"}, fo.ConfigurationError, "record maps names to intervals"),
        ({"record": {"loss": 0}}, fo.ConfigurationError, "0 is no interval"),
        ({"record": {"loss": 1.5}}, fo.ConfigurationError, "1.5 is no interval"),
        ({"record": {"momentum": 1}}, fo.ConfigurationError, "nothing called 'momentum' to record"),
        ({"compile": "yes"}, fo.ConfigurationError, "'auto', True or False, got 'yes'"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_are_refused(settings, error, match):
    with pytest.raises(error, match=match):
        run(**settings)


def test_a_name_that_can_not_be_recorded_is_refused_with_those_that_can():
    with pytest.raises(fo.ConfigurationError) as caught:
        run(fo.flows.adam(), fo.Splitting("TMVA"), record={"speed": 1})
    for name in ("position", "loss", "step_size", "'m'", "'v'", "u_m", "u_v", "lyapunov"):
        assert name in str(caught.value)


def test_two_records_of_one_name_are_refused():
    with pytest.raises(fo.ConfigurationError, match="two records are called '<lambda>'"):
        run(record={lambda *_: 1.0: 1, lambda *_: 2.0: 1})


def test_a_misspelt_argument_is_refused():
    with pytest.raises(TypeError, match="stepsize"):
        run(stepsize=0.1)


@pytest.mark.parametrize("tolerance", [-1.0, math.nan])
@pytest.mark.parametrize("stop", [fo.stop.gradient, fo.stop.rest])
def test_a_tolerance_is_not_negative(stop, tolerance):
    with pytest.raises(fo.ConfigurationError, match="a tolerance is not negative"):
        stop(tolerance)


def test_every_error_is_a_flowopt_error_and_a_value_error():
    for error in (
        fo.CompatibilityError,
        fo.ConfigurationError,
        fo.DataError,
        fo.DefinitionError,
    ):
        assert issubclass(error, fo.FlowoptError)
        assert issubclass(error, ValueError)


def test_an_error_within_a_letter_shows_the_printed_line(monkeypatch):
    flow = fo.Flow.from_text("A: dtheta/dt = -g*sin(theta)")

    def fail(value):
        raise ArithmeticError("inside")

    monkeypatch.setattr(torch, "sin", fail)
    with pytest.raises(ArithmeticError) as caught:
        run(flow, fo.Splitting("A", maps={"A": "euler"}), compile=False)
    (frame,) = [
        frame
        for frame in traceback.extract_tb(caught.tb)
        if frame.filename.startswith("<flowopt flow.A")
    ]
    assert frame.name == "update"
    assert "torch.sin(theta)" in frame.line


def test_an_error_within_a_loss_comes_through_as_it_is():
    calls = []

    def loss(theta):
        calls.append(1)
        if len(calls) > 8:
            raise LookupError("the user's own")
        return (theta**2).sum(-1)

    with pytest.raises(LookupError, match="the user's own"):
        run(problem=Loss(loss))
