"""Modified equations: schemes follow them at the orders that they promise."""

import numpy
import pytest
import sympy
import torch
from scipy.integrate import solve_ivp

import flowopt as fo
from flowopt.analysis import modified_equation
from flowopt.analysis.derivatives import hessian, third
from flowopt.analysis.modified import h
from flowopt.symbols import g, p, symbol, theta, total
from tests.reference.states import HILLS, flat, unflat

TIME = 0.4
STEPS = (4, 8, 16)
SLOW_ADAM = fo.flows.adam(momentum_rate=2.0, square_rate=1.0, eps=0.5)
CASES = [
    (fo.flows.gradient_flow(), fo.Splitting("A")),
    (fo.flows.gradient_flow(), fo.RungeKutta("midpoint")),
    (fo.flows.heavy_ball(friction=0.7), fo.Splitting("OBA")),
    (fo.flows.heavy_ball(friction=0.7), fo.Splitting("BAOAB")),
    (fo.flows.momentum_ema(rate=0.7), fo.Splitting("MA", maps={"M": "euler"})),
    (fo.flows.nesterov_ema(rate=0.7, memory=0.8), fo.Splitting("MA")),
    (fo.flows.rmsprop(square_rate=1.0, eps=0.5), fo.Splitting("VA")),
    (fo.Flow.from_text("A: dtheta/dt = -g/sqrt(1 + total(g**2))"), fo.Euler()),
    (fo.Flow.from_text("A: dtheta/dt = -exp(-t)*g"), fo.RungeKutta("midpoint")),
]


def moving(flow, scheme):
    """A state in motion, at its time."""
    word = scheme if isinstance(scheme, fo.Splitting) else fo.Splitting("".join(flow.letters))
    start = torch.tensor([0.8, 0.6], dtype=torch.float64)
    return fo.integrate(flow, word, HILLS, start, step_size=0.1, steps=10).state


def right_hand_side(flow, equation, step_size, like):
    """The modified vector field on flat states, Hessian products by automatic differentiation."""
    field = equation.vector_field
    names = [*flow.variables, *flow.scalars]
    values = {symbol(n): float(v) for n, v in flow.hyperparameters.items()}
    formulas = [f.subs({**values, h: step_size}) for f in field.values()]
    symbols = [symbol(n) for n in (*names, "g", "t", "L")]
    slope = torch.func.grad(HILLS.loss)
    second = torch.func.jacrev(slope)
    cubic = torch.func.jacrev(second)

    here = {}
    functions = {
        "hessian": lambda v: here["H"] @ v,
        "third": lambda v, w: here["T"] @ w @ v,
        "total": torch.sum,
        "sqrt": torch.sqrt,
        "exp": lambda v: torch.exp(torch.as_tensor(v, dtype=torch.float64)),
    }
    run = sympy.lambdify(symbols, formulas, [functions], cse=True)

    def drift(time, numbers):
        state = unflat(torch.from_numpy(numbers), like)
        point = {n: torch.stack(leaves) for n, leaves in state.variables.items()}
        x = point["theta"]
        here["H"], here["T"] = second(x), cubic(x)
        arguments = [point.get(n, state.scalars.get(n)) for n in names]
        found = run(*arguments, slope(x), time, HILLS.loss(x))
        table = {v.name: f for v, f in zip(field, found, strict=True)}
        parts = [
            torch.as_tensor(table[n], dtype=torch.float64) + torch.zeros_like(point[n])
            for n in sorted(state.variables)
        ]
        parts += [torch.as_tensor(table[n]).reshape(1) for n in sorted(state.scalars)]
        return torch.cat(parts).numpy()

    return drift


def errors(flow, scheme, order):
    """Distance of the scheme from the modified equation, for each number of steps."""
    equation = modified_equation(flow, scheme, order)
    state = moving(flow, scheme)
    begin = state.time.item()
    found = []
    for steps in STEPS:
        size = TIME / steps
        end = fo.integrate(flow, scheme, HILLS, state, step_size=size, steps=steps).state
        drift = right_hand_side(flow, equation, size, state)
        exact = solve_ivp(
            drift,
            (begin, begin + TIME),
            flat(state).numpy(),
            method="DOP853",
            rtol=1e-9,
            atol=1e-11,
        )
        found.append(numpy.abs(exact.y[:, -1] - flat(end).numpy()).max())
    return numpy.array(found)


@pytest.mark.parametrize(
    ("flow", "scheme", "order"),
    # To second order the first correction is tested too.
    [(*case, 2) for case in CASES]
    + [pytest.param(SLOW_ADAM, fo.Splitting("TMVA"), 2, marks=pytest.mark.slow)]
    + [(*CASES[2], 1)],
    ids=lambda x: getattr(x, "name", str(x)),
)
def test_a_scheme_follows_its_modified_equation_at_a_higher_order(flow, scheme, order):
    found = errors(flow, scheme, order)
    first, second = numpy.log2(found[:-1] / found[1:])
    assert 2 * second - first > order + 1 - 0.15, (first, second)


def test_gradient_descent_follows_the_loss_with_a_quarter_of_h_g_squared():
    """L + (h/4)|g|²: Barrett & Dherin 2021."""
    found = modified_equation(fo.flows.gradient_flow(), fo.Splitting("A"))
    assert found.fields[1][theta] == -hessian(g) / 2
    assert found.modified_loss == symbol("L") + h * total(g**2) / 4
    expected = -hessian(hessian(g)) / 3 - third(g, g) / 12
    assert sympy.expand(found.fields[2][theta] - expected) == 0


def test_symplectic_euler_has_the_modified_hamiltonian_of_the_literature():
    """H − (h/2) p·∇L for the word BA: Hairer, Lubich & Wanner 2006, example IX.3.4."""
    flow = fo.Flow.from_text("A: dtheta/dt = p\nB: dp/dt = -g")
    found = modified_equation(flow, fo.Splitting("BA"), order=1)
    assert found.fields[1] == {theta: -g / 2, p: hessian(p) / 2}


@pytest.mark.parametrize("word", ["BAOAB", "ABOBA", "OBABO"])
def test_a_palindrome_has_no_first_order_correction(word):
    found = modified_equation(fo.flows.heavy_ball(friction=0.7), fo.Splitting(word), order=1)
    assert not any(found.fields[1].values())


def test_a_method_of_order_4_has_no_corrections():
    found = modified_equation(fo.flows.heavy_ball(friction=0.7), fo.RungeKutta("rk4"))
    assert not any(f for field in found.fields[1:] for f in field.values())


def test_a_modified_equation_is_printed_as_one_reads_it():
    found = modified_equation(fo.flows.gradient_flow(), fo.Splitting("A"), order=1)
    assert "dtheta/dt = -g + h*(-H[g]/2)" in str(found)
    assert "gradient flow on L + h*total(g**2)/4" in str(found)
    assert r"\nabla^2 L\left[\nabla L\right]" in found.latex()


@pytest.mark.parametrize(
    ("flow", "scheme", "order", "message"),
    [
        (fo.flows.langevin(temperature=0.1), fo.Splitting("BAOAB"), 2, "has noise"),
        (fo.Flow.from_text("A: dtheta/dt = -sign(g)"), fo.Splitting("A"), 2, "kinks"),
        (fo.classic.adam().flow, fo.classic.adam().scheme, 2, "at_step_size"),
        (fo.flows.gradient_flow(), fo.Splitting("A"), 3, "expected 1 or 2"),
        ("adam", fo.Splitting("A"), 2, "give a fo.Flow"),
    ],
)
def test_what_has_no_expansion_is_refused_with_the_reason(flow, scheme, order, message):
    with pytest.raises(fo.CompatibilityError, match=message):
        modified_equation(flow, scheme, order)
