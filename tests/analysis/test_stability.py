"""Stability in closed form, against the real step and against published facts."""

import math

import numpy
import pytest
import sympy
import torch
from torch.testing import assert_close

import flowopt as fo
from flowopt.analysis import stability
from flowopt.analysis.linear_step import CURVATURE as k
from flowopt.analysis.stability import h
from flowopt.registry import FLOWS
from flowopt.symbols import symbol
from tests.reference.affine import affine_map
from tests.reference.states import flat, one_step, unflat

LINEAR = ("gradient_flow", "heavy_ball", "momentum_ema", "nesterov", "nesterov_ema", "langevin")
WORDS = [(n, fo.Splitting(w)) for n in LINEAR for w in FLOWS[n].words]
EULER_WORDS = [
    ("momentum_ema", fo.Splitting("MA", maps={"M": "euler"})),
    ("heavy_ball", fo.Splitting("BAOAB", maps={"O": "euler"})),
]
DRIFTS = [
    (n, scheme)
    for n in ("gradient_flow", "heavy_ball", "momentum_ema")
    for scheme in (
        fo.Euler(),
        fo.RungeKutta("heun"),
        fo.RungeKutta("rk4"),
        fo.EulerRichardson(),
        fo.EulerRichardson("author"),
    )
]
SAMPLES = 2


class Zeros:
    def normal(self, like, key):
        return tuple(torch.zeros_like(leaf) for leaf in like)


def random_flow(name, generator):
    """A flow of the registry with other hyperparameters."""
    flow = FLOWS[name].build()
    values = {n: generator.uniform(0.1, 0.9) for n in flow.hyperparameters}
    return flow.with_hyperparameters(**values)


def real_matrix(flow, scheme, step_size, curvature):
    """Columns by the step that runs, in the order of the names."""
    problem = fo.problems.quadratic([curvature])
    start = fo.integrate(
        flow, scheme, problem, torch.zeros(1, dtype=torch.float64), step_size=step_size, steps=0
    ).state
    states = unflat(torch.eye(flat(start).shape[-1], dtype=torch.float64), start)
    return flat(one_step(flow, scheme, problem, states, step_size, Zeros())).T


@pytest.mark.parametrize(("name", "scheme"), WORDS + EULER_WORDS + DRIFTS, ids=str)
def test_the_matrix_is_that_of_the_step_that_runs(name, scheme):
    generator = numpy.random.default_rng(1)
    for _ in range(SAMPLES):
        flow = random_flow(name, generator)
        step_size, curvature = generator.uniform(0.1, 1.5, 2)
        found = stability(flow, scheme)
        order = sorted(range(len(found.variables)), key=lambda i: found.variables[i].name)
        matrix = found.matrix_at(step_size, curvature)[numpy.ix_(order, order)]
        expected = real_matrix(flow, scheme, step_size, curvature)
        assert_close(torch.from_numpy(matrix), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "scheme"), WORDS + EULER_WORDS + DRIFTS, ids=str)
def test_the_largest_step_separates_bounded_from_growing_steps(name, scheme):
    generator = numpy.random.default_rng(2)
    for _ in range(SAMPLES):
        flow = random_flow(name, generator)
        curvature = generator.uniform(0.5, 3.0)
        found = stability(flow, scheme)
        largest = found.largest_step_at(curvature)
        if found.largest_step is not None:
            values = {
                k: curvature,
                **{symbol(n): float(v) for n, v in flow.hyperparameters.items()},
            }
            assert float(found.largest_step.subs(values)) == pytest.approx(largest, rel=1e-9)
        if 0 < largest < math.inf:
            for factor, grows in ((0.999, False), (1.001, True)):
                matrix = real_matrix(flow, scheme, factor * largest, curvature)
                assert (torch.linalg.eigvals(matrix).abs().max() > 1) == grows


# partitioned.md's list: ω² is the curvature k, c = exp(−γh).
@pytest.mark.parametrize("word", ["BAOAB", "ABOBA", "OBABO", "BAOA"])
@pytest.mark.parametrize("friction", [0.3, math.inf])
def test_langevin_words_are_stable_for_h_omega_below_2_at_every_friction(word, friction):
    found = stability(fo.flows.langevin(friction=friction, temperature=0.1), fo.Splitting(word))
    assert sympy.simplify(found.largest_step - 2 / sympy.sqrt(k)) == 0


@pytest.mark.parametrize("word", ["OBA", "BAO", "AOB"])
def test_words_with_each_letter_once_are_stable_for_h2k_below_2_plus_2c(word):
    found = stability(fo.flows.heavy_ball(friction=0.3), fo.Splitting(word))
    (condition,) = found.conditions
    ((c, meaning),) = found.decays.items()
    assert condition.margin.expand() == 2 * c + 2 - h**2 * k
    assert meaning == sympy.exp(-symbol("friction") * h)


def test_explicit_euler_of_the_heavy_ball_needs_friction_above_hk():
    found = stability(fo.flows.heavy_ball(friction=0.3), fo.Euler())
    assert "h*k < friction" in map(str, found.conditions)
    undamped = stability(fo.flows.heavy_ball(friction=0.0), fo.Euler())
    assert undamped.largest_step == 0
    assert undamped.largest_step_at(1.0) == 0


def test_semi_implicit_friction_is_stable_for_h2k_plus_2_gamma_h_below_4():
    flow = fo.Flow.from_text("B: dp/dt = -g - y*p\nA: dtheta/dt = p", y=0.7)
    (condition,) = stability(flow, fo.Splitting("BA", maps={"B": "euler"})).conditions
    assert condition.margin.expand() == 4 - 2 * h * symbol("y") - h**2 * k


def test_gradient_descent_is_stable_below_2_over_k_and_rk4_below_2_785_over_k():
    flow = fo.flows.gradient_flow()
    assert stability(flow, fo.Splitting("A")).largest_step == 2 / k
    assert float(stability(flow, fo.RungeKutta("rk4")).largest_step * k) == pytest.approx(
        2.785293563405282, rel=1e-12
    )


def test_momentum_is_stable_where_the_classic_condition_says():
    """lr·k < 2(1 + μ) for torch's SGD with momentum μ."""
    for mu in (0.5, 0.9):
        method = fo.classic.sgd(lr=0.1, momentum=mu)
        found = stability(method.flow, method.scheme)
        assert found.largest_step_at(1.7) == pytest.approx(2 * (1 + mu) / 1.7, rel=1e-9)


def momentum_energy():
    flow = fo.flows.momentum_ema(rate=0.5)
    found = stability(flow, fo.Splitting("MA", maps={"M": "euler"}))
    return found, found.energy_condition("mechanical")


def test_momentums_discrete_energy_has_the_published_conditions():
    """V falls from every state iff b h + h k ≤ 2 and b h² k ≤ 1."""
    _, found = momentum_energy()
    b, gain = symbol("rate"), symbol("gain")
    margins = [condition.margin.subs(gain, 1).expand() for condition in found.conditions]
    assert 2 - b * h - h * k in margins
    assert 1 - b * h**2 * k in margins


def test_of_momentums_two_conditions_the_first_is_enough():
    """4 b h · h k = (b h + h k)² − (b h − h k)² ≤ 4, so b h + h k ≤ 2 says it all."""
    found, energy = momentum_energy()
    b, gain = symbol("rate"), symbol("gain")
    first = 2 - b * h - h * k
    generator = numpy.random.default_rng(3)
    change = sympy.lambdify([b, h, k], energy.change.subs(gain, 1))
    for values in generator.uniform(0.05, 3.0, (60, 3)):
        point = dict(zip((b, h, k), values, strict=True))
        falls = numpy.linalg.eigvalsh(numpy.array(change(*values), dtype=float)).max() <= 1e-12
        assert falls == bool(first.subs(point) >= 0)
        holds = [c.margin.subs(gain, 1).subs(point) >= 0 for c in energy.conditions]
        assert falls == all(holds)
    assert found.variables[0].name == "theta"


def test_gradient_descent_lowers_the_loss_wherever_it_is_stable():
    found = stability(fo.flows.gradient_flow(), fo.Splitting("A"))
    assert [str(c) for c in found.energy_condition("loss").conditions] == ["h*k <= 2"]


@pytest.mark.parametrize("word", FLOWS["langevin"].words)
def test_the_covariance_is_that_which_the_real_step_keeps(word):
    flow = fo.flows.langevin(friction=0.7, temperature=0.3)
    found = stability(flow, fo.Splitting(word))
    names = [v.name for v in found.variables]
    order = [names.index("p"), names.index("theta")]
    meanings = dict(found.decays)
    formula = found.covariance.subs(meanings)
    values = {h: 0.5, k: 1.7, symbol("friction"): 0.7, symbol("temperature"): 0.3}
    numbers = numpy.array(formula.subs(values), dtype=float)[numpy.ix_(order, order)]
    chain = affine_map(flow, fo.Splitting(word), fo.problems.quadratic([1.7]), 0.5)
    assert_close(torch.from_numpy(numbers), chain.stationary_covariance(), rtol=0, atol=1e-12)


def test_baoab_has_the_exact_position_variance_as_a_formula():
    found = stability(fo.flows.langevin(friction=1.0, temperature=0.1), fo.Splitting("BAOAB"))
    temperature = symbol("temperature")
    expected = sympy.diag(temperature / k, temperature * (1 - h**2 * k / 4))
    assert sympy.simplify(found.covariance - expected) == sympy.zeros(2, 2)


def test_the_regulariser_of_momentum_is_ghoshs():
    """The slow mode decays as gradient flow on L + c|g|² with c = (lr/4)(1 + μ)/(1 − μ)², in time

    n·lr/(1 − μ): (1 + μ)/(1 − μ) times gradient descent's at the same rate lr/(1 − μ).
    """
    mu, lr = sympy.Symbol("mu", positive=True), sympy.Symbol("lr", positive=True)
    method = fo.classic.sgd(lr=0.1, momentum=0.9)
    matrix = stability(method.flow, method.scheme).matrix
    values = {symbol("gain"): 1 / (1 - mu), symbol("rate"): -sympy.log(mu), h: lr}
    matrix = matrix.subs(values).applyfunc(sympy.simplify)
    trace, product = matrix.trace(), matrix.det()
    # λ = 1 − δ with δ = δ₁k + δ₂k², by the characteristic polynomial order by order.
    first, second = sympy.symbols("first second")
    value = 1 - first * k - second * k**2
    rest = sympy.expand(sympy.simplify(value**2 - trace * value + product))
    solution = sympy.solve([rest.coeff(k, 1), rest.coeff(k, 2)], [first, second], dict=True)
    rates = [(s[first], s[second] + s[first] ** 2 / 2) for s in solution]
    slow = lr / (1 - mu)
    expected = (slow, slow * 2 * (lr / 4) * (1 + mu) / (1 - mu) ** 2)
    assert any(
        sympy.simplify(a - expected[0]) == 0 and sympy.simplify(b - expected[1]) == 0
        for a, b in rates
    )


def test_a_number_may_stand_for_the_curvature():
    found = stability(fo.flows.heavy_ball(friction=1.0), fo.Splitting("BAOAB"), curvature=4.0)
    assert found.largest_step == 1
    assert found.largest_step_at() == pytest.approx(1.0, rel=1e-12)
    assert found.spectral_radius(0.5) == pytest.approx(math.exp(-0.25), rel=1e-12)
    assert float(abs(found.eigenvalues[0].subs({h: 0.5, symbol("friction"): 1.0}))) == (
        pytest.approx(math.exp(-0.25), rel=1e-12)
    )


@pytest.mark.parametrize(
    ("flow", "scheme", "message"),
    [
        (fo.flows.adam(), fo.Splitting("TMVA"), "is not linear on a quadratic loss"),
        (fo.flows.rmsprop(), fo.Splitting("VA"), "'theta' moves depends on theta, v"),
        (fo.flows.heavy_ball(), fo.Splitting("BA"), "leaves out"),
        ("adam", fo.Splitting("A"), "give a fo.Flow"),
    ],
)
def test_what_has_no_matrix_is_refused_with_the_reason(flow, scheme, message):
    with pytest.raises(fo.CompatibilityError, match=message):
        stability(flow, scheme)


def test_a_missing_curvature_and_energies_in_other_time_are_refused():
    found = stability(fo.flows.heavy_ball(), fo.Splitting("BAOAB"))
    with pytest.raises(fo.CompatibilityError, match="give curvature"):
        found.spectral_radius(0.1)
    method = fo.classic.sgd(lr=0.1, momentum=0.9)
    with pytest.raises(fo.CompatibilityError, match="at_step_size"):
        stability(method.flow, method.scheme).energy_condition("mechanical")


@pytest.mark.parametrize("curvature", [-1.0, 0.0, math.nan, math.inf])
def test_a_curvature_without_a_largest_step_is_refused(curvature):
    found = stability(fo.flows.gradient_flow(), fo.Euler())
    with pytest.raises(fo.CompatibilityError, match="curvature"):
        found.largest_step_at(curvature)
