"""Arguments of the wrong kind: refused by name, never by an error from inside torch or Python."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import flowopt as fo
from flowopt.optim import FlowOptimizer
from flowopt.problems import Minibatches, network
from flowopt.symbolic.text import parse
from tests.reference.states import Loss

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([1.0, 2.0], dtype=torch.float64)
ENSEMBLE = START.expand(3, 2)
GRADIENT_FLOW = fo.flows.gradient_flow()
PAIR = torch.ones(2, dtype=torch.float64)
NETWORK = network(nn.Linear(2, 1), mse_loss, (torch.ones(3, 2), torch.ones(3, 1)))


def run(**changed):
    arguments = {
        "flow": GRADIENT_FLOW,
        "scheme": fo.Euler(),
        "problem": QUADRATIC,
        "start": START,
        "steps": 3,
        **({} if "control" in changed else {"step_size": 0.1}),
        **changed,
    }
    return fo.integrate(**arguments)


def parameters():
    return [nn.Parameter(START.clone())]


def refuses(error, match, use):
    with pytest.raises(error, match=match):
        use()


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"flow": "adam"}, fo.CompatibilityError, "flow='adam' is no flow: give"),
        ({"flow": fo.flows.adam}, fo.CompatibilityError, "is no flow: give"),
        ({"flow": fo.classic.adam()}, fo.CompatibilityError, "give method.flow, method.scheme"),
        ({"scheme": "BAOAB"}, fo.CompatibilityError, r"is no scheme: give Splitting\('BAOAB'\)"),
        ({"scheme": fo.Euler}, fo.CompatibilityError, r"the class Euler.*write Euler\(...\)"),
        ({"scheme": fo.classic.adam()}, fo.CompatibilityError, "step_size=method.step_size"),
        ({"control": 0.1}, fo.CompatibilityError, "control=0.1 is no control.* step_size=0.1"),
        ({"step_size": "0.1"}, fo.ConfigurationError, "step_size is a real number .* got '0.1'"),
        ({"step_size": True}, fo.ConfigurationError, "step_size is a real number .* got True"),
        ({"duration": "1"}, fo.ConfigurationError, "duration is a real number .* got '1'"),
        (
            {"duration": PAIR},
            fo.CompatibilityError,
            r"duration has shape \(2,\), the batch has shape \(\)",
        ),
        (
            {"start": ENSEMBLE, "duration": PAIR},
            fo.CompatibilityError,
            r"shape \(2,\), the batch has shape \(3,\)",
        ),
        ({"seed": "1"}, fo.ConfigurationError, "a seed is a whole number .* got '1'"),
        ({"seed": 1.5}, fo.ConfigurationError, "a seed is a whole number .* got 1.5"),
        ({"seed": -1}, fo.ConfigurationError, "a seed is a whole number from 0"),
        ({"seed": 2**63}, fo.ConfigurationError, r"to 2\*\*63 - 1, got 9223372036854775808"),
        ({"device": 3.5}, fo.ConfigurationError, "device 3.5 can not be used here"),
        ({"progress": 3}, fo.ConfigurationError, "progress is True, False or a function .* got 3"),
        (
            {"stop": fo.stop.rest},
            fo.ConfigurationError,
            r"stop=flowopt.stop.rest has no tolerance: give flowopt.stop.rest\(1e-6\)",
        ),
        ({"record": {"a": (1, 3)}}, fo.ConfigurationError, "is no pair .every, function."),
        (
            {"record": {"a": (1, lambda state, evaluation: None)}},
            fo.ConfigurationError,
            "record 'a' gave None, expected a tensor",
        ),
        (
            {"control": fo.Schedule(lambda step: "0.1")},
            fo.CompatibilityError,
            "gives '0.1' at step 0",
        ),
        ({"control": fo.Schedule(lambda step: None)}, fo.CompatibilityError, "gives None"),
        ({"control": fo.Schedule(lambda step: PAIR)}, fo.CompatibilityError, r"gives tensor\("),
    ],
    # The values print with addresses, which differ between processes.
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_argument_of_the_wrong_kind_is_refused(changed, error, match):
    refuses(error, match, lambda: run(**changed))


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda state, evaluation: None, "gave None, expected a bool tensor of shape"),
        (lambda state, evaluation: True, "gave True, expected a bool tensor"),
        (lambda state, evaluation: evaluation.loss, r"gave torch.float64, \(3,\), expected a bool"),
        (lambda state, evaluation: evaluation.loss[:2] > 0, r"gave torch.bool, \(2,\), expected"),
    ],
)
def test_a_stop_function_gives_one_truth_value_per_trajectory(answer, match):
    refuses(fo.ConfigurationError, match, lambda: run(start=ENSEMBLE, stop=answer))


def test_a_state_of_another_flow_is_refused():
    state = run().state
    with pytest.raises(
        fo.CompatibilityError, match=r"has \['p', 'theta'\] and \[\]: continue with"
    ):
        run(flow=fo.flows.heavy_ball(), scheme=fo.Splitting("OBA"), start=state)


def test_a_state_with_other_scalars_is_refused():
    state = run(flow=fo.flows.adam(), scheme=fo.Splitting("TMVA")).state
    with pytest.raises(fo.CompatibilityError, match=r"scalars \['u_m', 'u_v'\], flow 'gradient"):
        run(start=state)


@pytest.mark.parametrize(
    "problem",
    [
        fo.problems.double_well(),
        fo.problems.quadratic([1.0] * 20),
        fo.problems.quadratic([1.0] * 3),
        NETWORK,
    ],
    ids=["fewer", "one leaf", "more", "network"],
)
def test_a_state_of_another_problem_is_refused(problem):
    state = run().state
    refuses(
        fo.CompatibilityError,
        r"'theta' of the state has leaves of shapes \[\(\), \(\)\], the problem expects",
        lambda: run(problem=problem, start=state),
    )


def test_a_state_of_a_network_is_refused_by_a_landscape():
    state = run(problem=NETWORK, start=NETWORK.start(3)).state
    with pytest.raises(fo.CompatibilityError, match=r"\[\(3, 1, 2\), \(3, 1\)\], the problem"):
        run(start=state)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: fo.Constant("a"), fo.ConfigurationError, "step_size is a real number"),
        (lambda: fo.Schedule(0.1), fo.CompatibilityError, "a function of the step number, got 0.1"),
        (lambda: fo.ErrorControl(rtol="a"), fo.ConfigurationError, "rtol is a real number"),
        (lambda: fo.stop.rest("a"), fo.ConfigurationError, "a tolerance is a real number"),
        (lambda: fo.stop.rest(PAIR), fo.ConfigurationError, "a tolerance .* a single number"),
        (lambda: fo.Splitting("BA", maps="A"), fo.CompatibilityError, r"as in maps=\{'A': 'eul"),
        (lambda: fo.RungeKutta(["rk4"]), fo.CompatibilityError, "no Runge-Kutta method"),
        (lambda: fo.Term("A", drift=3), fo.DefinitionError, "3 is no table of formulas"),
        (
            lambda: fo.forward_passes({"gradient": 1}),
            fo.ConfigurationError,
            r"no costs of \['gradient'\] are known: give \['losses'",
        ),
        (lambda: fo.problems.gauss_newton(QUADRATIC, "a"), fo.DataError, "a position is a tensor"),
        (lambda: fo.problems.curvature(QUADRATIC, ()), fo.DataError, "a position is .* got tuple"),
        (
            lambda: fo.problems.curvature(QUADRATIC, (torch.ones(3),)),
            fo.DataError,
            r"the leaves have shapes \[\(3,\)\], expected",
        ),
        (lambda: Minibatches(2, shared="no"), fo.DataError, "shared is True or False, got 'no'"),
        (
            lambda: fo.classic.adam().flow.at_step_size("a"),
            fo.DefinitionError,
            "step_size = 'a' is no real number",
        ),
        (lambda: fo.problems.quadratic("a"), fo.DataError, "curvatures is a real number"),
        (lambda: fo.problems.quadratic([math.nan]), fo.DataError, "curvatures are finite"),
        *(
            (
                lambda build=build: build(temperature=-1.0),
                fo.DefinitionError,
                f"flow '{build.__name__}': temperature is not negative, got -1.0",
            )
            for build in (fo.flows.langevin, fo.flows.overdamped_langevin, fo.flows.nose_hoover)
        ),
        (
            lambda: fo.flows.adaptive_langevin(temperature=torch.tensor([1.0, -1.0])),
            fo.DefinitionError,
            "temperature is not negative",
        ),
        (
            lambda: fo.flows.heavy_ball(friction=torch.tensor(math.nan)),
            fo.DefinitionError,
            "friction is not a number",
        ),
        (
            lambda: fo.flows.heavy_ball(friction=torch.tensor([1.0, math.nan])),
            fo.DefinitionError,
            "friction is not a number",
        ),
    ],
)
def test_what_can_not_be_used_is_refused_when_it_is_made(make, error, match):
    refuses(error, match, make)


def test_a_hyperparameter_that_is_changed_to_no_number_is_refused():
    flow = fo.flows.heavy_ball().with_hyperparameters(friction=torch.tensor(math.nan))
    with pytest.raises(fo.DefinitionError, match="friction is not a number"):
        run(flow=flow, scheme=fo.Splitting("OBA"))


@pytest.mark.parametrize(
    ("arguments", "settings", "match"),
    [
        ((lambda x: x, mse_loss), {}, "a network is a torch.nn.Module, got function"),
        ((nn.Linear(2, 1), None), {}, r"loss=None is no function of \(outputs, targets\)"),
        ((nn.Linear(2, 1), mse_loss), {"batch": 3}, r"batch=3: give Minibatches\(size\)"),
    ],
    ids=["module", "loss", "batch"],
)
def test_what_makes_no_network_is_refused(arguments, settings, match):
    data = torch.ones(3, 2), torch.ones(3, 1)
    refuses(fo.DataError, match, lambda: network(*arguments, data, **settings))


@pytest.mark.parametrize("replicas", [0, -1, 1.5, True])
def test_an_ensemble_has_at_least_one_network(replicas):
    with pytest.raises(fo.DataError, match="replicas is a whole number from 1, got"):
        NETWORK.start(replicas)


def test_minibatches_are_taken_as_they_were():
    batch = Minibatches(2)
    data = torch.ones(3, 2), torch.ones(3, 1)
    assert network(nn.Linear(2, 1), mse_loss, data, batch=batch).minibatches is batch


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda p: fo.optim.Adam(p, betas=0.9), fo.ConfigurationError, "betas are a pair"),
        (lambda p: fo.optim.Adam(p, betas=("a", 0.9)), fo.ConfigurationError, "beta is a real"),
        (lambda p: fo.optim.Adam(p, lr="a"), fo.ConfigurationError, "lr is a real number"),
        (lambda p: fo.optim.SGD(p, lr=PAIR), fo.ConfigurationError, "Tensor lr must be 1-element"),
        (
            lambda p: fo.optim.SGD(p, momentum=PAIR / 2),
            fo.ConfigurationError,
            "Tensor momentum must",
        ),
        (lambda p: fo.optim.SGD(p, seed=1.5), fo.ConfigurationError, "a seed is a whole number"),
        (
            lambda p: FlowOptimizer(p, GRADIENT_FLOW, fo.Splitting("A"), seed=1.5),
            fo.ConfigurationError,
            "a seed is a whole number",
        ),
        (
            lambda p: FlowOptimizer(p, GRADIENT_FLOW, fo.Splitting("A"), lr=PAIR),
            fo.ConfigurationError,
            "Tensor lr must be 1-element",
        ),
        (
            lambda p: FlowOptimizer(p, fo.flows.heavy_ball(friction=PAIR), fo.Splitting("OBA")),
            fo.ConfigurationError,
            "Tensor friction must be 1-element",
        ),
        (
            lambda p: FlowOptimizer(p, "adam", fo.Splitting("A")),
            fo.CompatibilityError,
            "flow='adam' is no flow",
        ),
        (
            lambda p: FlowOptimizer(p, GRADIENT_FLOW, "A"),
            fo.CompatibilityError,
            "scheme='A' is no scheme",
        ),
    ],
)
def test_an_optimizer_refuses_values_that_it_can_not_use(make, error, match):
    refuses(error, match, lambda: make(parameters()))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("A: dϵ/dt=g-ϵ\nB: dtheta/dt=-ϵ", "A: dε/dt=g-ε\nB: dtheta/dt=-ε"),
        ("\ufeffA: dtheta/dt=-g", "A: dtheta/dt=-g"),
    ],
    ids=["one letter with two codes", "byte-order mark"],
)
def test_text_means_what_it_looks_like(written, meant):
    assert parse(written) == parse(meant)


@pytest.mark.parametrize("formula", ["-g*5²", "-g²"])
def test_a_raised_digit_is_no_digit_and_no_part_of_a_name(formula):
    with pytest.raises(fo.DefinitionError, match="is no formula"):
        fo.Flow.from_text(f"A: dtheta/dt = {formula}", g2=1.0)


def branching(theta):
    return (theta**2).sum() if theta.sum() > 0 else theta.abs().sum()


def random(theta):
    return (theta**2 * torch.rand_like(theta)).sum()


@pytest.mark.parametrize("loss", [branching, random])
def test_a_loss_for_one_point_only_is_refused_for_an_ensemble(loss):
    refuses(
        fo.DataError,
        "works for one point only and can not be vectorised: vmap.*Write it for theta of shape",
        lambda: run(problem=Loss(loss), start=ENSEMBLE),
    )


@pytest.mark.parametrize("loss", [branching, random])
def test_a_loss_for_one_point_only_serves_a_single_trajectory(loss):
    assert run(problem=Loss(loss)).status == fo.Status.STEPS_TAKEN
