"""Verdicts on energies: pinned, and each kind checked against something else."""

import mpmath
import pytest
import sympy
import torch

import flowopt as fo
from flowopt.analysis import certify
from flowopt.analysis.proofs.conditions import Condition
from flowopt.analysis.proofs.relaxation import at_most
from flowopt.analysis.proofs.signs import Knowledge, sign
from flowopt.core.evaluation import Evaluation
from flowopt.registry import FLOWS
from flowopt.symbols import symbol
from tests.reference.states import state_of

ENERGIES = [(name, energy) for name in FLOWS for energy in FLOWS[name].build().energies]
# Verdict and conditions where the two are not "proved" and none.
PINNED = {
    ("adam", "lyapunov"): ("proved", ["square_rate <= 4*momentum_rate"]),
    ("nesterov_ema", "mechanical"): ("proved", ["memory <= 1"]),
    ("langevin", "mechanical"): ("counterexample", []),
}
BALANCED = "scalar xi\nA: dtheta/dt = p\nB: dp/dt = -g - xi*p\nE: dxi/dt = e*(total(p**2) - c)"
TEXTS = {
    "sign": ("A: dtheta/dt = -sign(g)\nenergy e: L", "proved"),
    "normalised": ("A: dtheta/dt = -g/sqrt(total(g**2))\nenergy e: L", "proved"),
    "clipped": ("A: dtheta/dt = -min(1, 2/sqrt(total(g**2)))*g\nenergy e: L", "proved"),
    "soft sign": ("A: dtheta/dt = -tanh(g) - abs(g)*g\nenergy e: L", "proved"),
    "nesterov 3/t": ("A: dtheta/dt = p\nB: dp/dt = -g - 3/t*p\nenergy e: L + p**2/2", "proved"),
    "conserving": ("A: dtheta/dt = p\nB: dp/dt = -g\nenergy e: L + p**2/2", "proved"),
    "inertial newton": (
        "parameter a = 0.5\nparameter b = 0.1\n"
        "A: dtheta/dt = -(a - 1/b)*theta - psi/b - b*g\nB: dpsi/dt = -(a - 1/b)*theta - psi/b\n"
        "energy e: (a*b + 1)*L + ((a - 1/b)*theta + psi/b)**2/2",
        "proved",
    ),
    "thermostat": (
        f"parameter e = 0.5\nparameter c = 1\n{BALANCED}\nenergy e: L + p**2/2 + xi**2/(2*e)",
        "counterexample",
    ),
    "cold thermostat": (
        f"parameter e = 0.5\nparameter c = 0\n{BALANCED}\nenergy e: L + p**2/2 + xi**2/(2*e)",
        "proved",
    ),
    "repelled": ("A: dtheta/dt = theta - g\nenergy e: L", "counterexample"),
    "ascent": ("parameter k = -0.5\nA: dtheta/dt = -k*g\nenergy e: L", "counterexample"),
}


# Signs of what has corners, and of second derivatives, are open to the proofs.
UNDECIDED = ("amsgrad", "yogi", "lion", "overdamped_langevin")


@pytest.mark.parametrize(("name", "energy"), ENERGIES)
def test_every_energy_of_the_registry_has_a_verdict(name, energy):
    found = certify(FLOWS[name].build(), energy)
    expected = PINNED.get((name, energy))
    if expected is None:
        assert (found.verdict == "undecided") == (name in UNDECIDED)
        return
    assert (found.verdict, [str(c) for c in found.conditions]) == expected


@pytest.mark.parametrize("name", ["gradient_flow", "heavy_ball", "momentum_ema", "rmsprop"])
def test_published_energies_are_proved_without_conditions(name):
    flow = FLOWS[name].build()
    found = certify(flow, flow.energies[0])
    assert (found.verdict, found.conditions) == ("proved", ())


@pytest.mark.parametrize("name", TEXTS)
def test_a_flow_in_text_gets_the_verdict_that_is_true(name):
    text, verdict = TEXTS[name]
    assert certify(fo.Flow.from_text(text), "e").verdict == verdict


@pytest.mark.parametrize("eps", [0.0, 1e-8, 0.3])
@pytest.mark.parametrize(("ratio", "verdict"), [(4.0, "proved"), (4.01, "counterexample")])
def test_adam_is_proved_up_to_b_equal_4a_and_refuted_beyond(ratio, verdict, eps):
    flow = fo.flows.adam(momentum_rate=0.5, square_rate=0.5 * ratio, eps=eps)
    assert certify(flow, "lyapunov").verdict == verdict


def test_a_proof_holds_for_every_member_of_a_batch():
    rates = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    assert certify(fo.flows.adam(momentum_rate=1.0, square_rate=rates[:2]), "lyapunov").conditions
    found = certify(fo.flows.adam(momentum_rate=1.0, square_rate=rates, eps=0.0), "lyapunov")
    assert found.counterexample.values["square_rate"] == 5.0


def rate_in_torch(flow, energy, values):
    """The rate of one element by the code that runs."""
    equations = flow.equations
    number = {n: torch.tensor([x], dtype=torch.float64) for n, x in values.items()}
    zero = torch.zeros(1, dtype=torch.float64)
    variables = {v.name: number.get(v.name, zero)[None] for v in equations.variables}
    scalars = {s.name: number.get(s.name, zero) for s in equations.scalars}
    evaluation = Evaluation(zero, (number.get("g", zero),))
    return flow.energy(energy).rate(state_of(variables, **scalars), evaluation).item()


@pytest.mark.parametrize(
    "flow",
    [
        fo.flows.adam(momentum_rate=0.5, square_rate=4.0, eps=0.01),
        fo.flows.langevin(friction=0.3, temperature=0.2),
        fo.flows.nesterov_ema(rate=1.0, memory=1.5),
    ],
    ids=lambda flow: flow.name,
)
def test_the_code_that_runs_has_the_rate_of_a_counterexample(flow):
    (energy,) = flow.energies
    found = certify(flow, energy).counterexample
    assert found.rate > 0
    assert rate_in_torch(flow, energy, found.values) == pytest.approx(found.rate, rel=1e-9)


def test_the_lemma_holds_in_interval_arithmetic():
    """a + a/(1 − q) − (b/2)/(1 − e^{−bt}) > 0 on boxes that cover 0.01 ≤ at ≤ 10, b ≤ 3.9 a."""
    for ratio in (0.1, 1.0, 2.0, 3.9):
        for i in range(200):
            y = mpmath.iv.mpf([0.01 + 0.05 * i, 0.01 + 0.05 * (i + 1)])
            relaxed = [1 - mpmath.iv.exp(-y * c) for c in (1, ratio)]
            bracket = y + y / relaxed[0] - ratio / 2 * y / relaxed[1]
            assert bracket.b > 0
            middle = mpmath.iv.mpf(y.mid)
            relaxed = [1 - mpmath.iv.exp(-middle * c) for c in (1, ratio)]
            assert (1 + 1 / relaxed[0] - mpmath.iv.mpf(ratio) / 2 / relaxed[1]).a > 0


def test_the_lemma_gives_the_bound_of_the_literature():
    """The bracket is at least a (q + q² + q³ − q⁴)/(2(1 − q⁴)) at b = 4a."""
    a, b, q = symbol("a"), symbol("b"), sympy.Symbol("q", positive=True)
    bracket = a + a * q / (2 * (1 - q)) - (b / 4) / (1 - q**4)
    claimed = a * (q + q**2 + q**3 - q**4) / (2 * (1 - q**4))
    assert sympy.cancel(bracket.subs(b, 4 * a) - claimed) == 0
    u, w = symbol("u"), symbol("w")
    known = Knowledge(frozenset({a, b}), {u: a, w: b})
    bound = at_most(2 * a * u * w + 2 * a * w - b * u, known)
    assert str(bound.condition) == "b <= 4*a"
    assert bound.condition == Condition(4 * a - b)
    remainder = bound.steps[-1].partition("a times ")[2].partition(" >= 0")[0]
    # The formula is four times u·w times the bracket.
    assert sympy.cancel(sympy.sympify(remainder, {"q": q}) - 4 * claimed / a) == 0


def test_the_lemma_refuses_what_it_does_not_show():
    a, b, u, w = map(symbol, ("a", "b", "u", "w"))
    known = Knowledge(frozenset({a, b}), {u: a, w: b})
    # b/w falls with b, but +2b rises; and −a/u + b/w bounds nothing as b grows.
    assert at_most(2 * a * w + 2 * b * u * w - b * u, known) is None
    assert at_most(b * u - 3 * a * w, known) is None
    # Late times allow b ≤ 4a, early ones nothing.
    assert at_most(a * w + 7 * a * u * w - 2 * b * u, known) is None
    # 2a − b/w is negative for small times at any b.
    assert at_most(2 * a * u * w - b * u, known) is None


x, y = symbol("x"), symbol("y")


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (x**2 + y**4, 1),
        (-x * sympy.sign(x), -1),
        (x**3 * sympy.tanh(x), 1),
        (x * y, None),
        (sympy.sqrt(x) / (1 + sympy.sqrt(y)), 1),
        (x ** sympy.Rational(1, 3) + 1, 1),
        (sympy.Min(x**2, y**2), 1),
        (sympy.Min(x, -1), -1),
        (sympy.Max(x, 0), 1),
        (sympy.Max(x, -1), None),
        (x**-1, None),
        (x ** symbol("n"), None),
        (sympy.log(x), None),
        (x**2 - y**2, None),
    ],
)
def test_a_sign_is_claimed_only_where_a_rule_gives_it(formula, expected):
    assert sign(formula, Knowledge()) == expected


def test_rates_per_step_and_unknown_energies_are_refused():
    with pytest.raises(fo.CompatibilityError, match="at_step_size"):
        certify(fo.classic.adam().flow, "lyapunov")
    with pytest.raises(fo.DefinitionError, match="no energy"):
        certify(fo.flows.heavy_ball(), "potential")
    with pytest.raises(fo.CompatibilityError, match=r"give a fo\.Flow"):
        certify("adam", "lyapunov")


def test_a_certificate_reads_as_an_argument():
    text = str(certify(fo.flows.adam(), "lyapunov"))
    assert "never rises, proved for square_rate <= 4*momentum_rate" in text
    assert "u_m = 1 - exp(-momentum_rate*t), between 0 and 1" in text
    assert "falls as square_rate grows" in text
