"""What a text means: noise, names, numbers, and the same in Python."""

import math

import pytest
import sympy
import torch

import flowopt as fo
from flowopt.core.evaluation import Evaluation
from flowopt.symbols import LOSS, g, p, symbol, theta

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([1.0, 2.0], dtype=torch.float64)


def steps(text, word, count=1, step_size=0.1, **hyperparameters):
    flow = fo.Flow.from_text(text, **hyperparameters)
    return fo.integrate(
        flow, fo.Splitting(word), QUADRATIC, START, step_size=step_size, steps=count
    )


def test_two_named_noises_of_one_term_are_independent():
    flow = fo.Flow.from_text("A: dtheta/dt = dW1/dt + 2*dW2/dt")
    (term,) = flow.equations.terms
    amplitudes = {str(w): float(a) for w, a in term.amplitudes(theta).items()}
    assert amplitudes == {"dW1": 1.0, "dW2": 2.0}


def test_one_noise_may_drive_two_variables_of_a_term():
    end = steps("A: dtheta/dt = dW/dt\nA: dp/dt = dW/dt", "A")
    moved = [x - x0 for x, x0 in zip(end.state.position, START, strict=True)]
    for p_leaf, change in zip(end.state.variables["p"], moved, strict=True):
        torch.testing.assert_close(p_leaf, change, rtol=0, atol=1e-15)


def test_the_text_of_the_design_gives_langevin_dynamics():
    text = """
    A: dtheta/dt = p
    B: dp/dt = -g
    O: dp/dt = -friction*p + sqrt(2*friction*temperature)*dW/dt
    energy mechanical: L + p**2/2
    """
    flow = fo.Flow.from_text(text, friction=1.0, temperature=0.1)
    built_in = fo.flows.langevin(friction=1.0, temperature=0.1)
    assert flow.letters == ("A", "B", "O")
    settings_ = {"step_size": 0.1, "steps": 20, "seed": 3}
    word = fo.Splitting("BAOAB")
    ours, theirs = (
        fo.integrate(f, word, QUADRATIC, START, **settings_).position for f in (flow, built_in)
    )
    assert torch.equal(ours, theirs)


def test_spaces_comments_and_line_ends_do_not_matter():
    texts = ["A: dtheta/dt = -g", "  A :  dtheta / dt  =  - g  # down\r\n\r\n# end\n"]
    one, other = (fo.Flow.from_text(text).equations for text in texts)
    assert one == other


def test_all_lines_together():
    flow = fo.Flow.from_text(
        """
        reference: A. Stranger 2026, section 3: drafts
        parameter rate = 1/2
        U: du/dt = rate*(total(g**2) - u)
        M: dm/dt = rate*(g - m)
        A: dtheta/dt = -m/(1 + sqrt(abs(u)))
        scalar u
        start m = g
        start u = 2
        energy e: rate*L + m**2/2
        """
    )
    assert flow.equations.reference == "A. Stranger 2026, section 3: drafts"
    assert flow.hyperparameters["rate"].item() == 0.5
    assert flow.energies == ("e",)
    start = fo.integrate(flow, fo.Splitting("UMA"), QUADRATIC, START, step_size=0.1, steps=0).state
    assert torch.equal(torch.stack(start.variables["m"]), QUADRATIC.gradient(START))
    assert start.scalars["u"].item() == 2.0


def test_a_value_by_keyword_overrides_a_parameter_line():
    text = "A: dtheta/dt = -a*g\nparameter a = 1"
    assert fo.Flow.from_text(text).hyperparameters["a"].item() == 1.0
    assert fo.Flow.from_text(text, a=3).hyperparameters["a"].item() == 3.0


def test_greek_names_are_names():
    end = steps("A: dtheta/dt = -γ*g\nparameter γ = 0.5", "A")
    assert torch.equal(end.position, START - 0.1 * (0.5 * QUADRATIC.gradient(START)))


@pytest.mark.parametrize("value", ["1", "2.0"])
def test_a_number_may_start_a_variable(value):
    text = f"M: dm/dt = g - m\nA: dtheta/dt = -m\nstart m = {value}"
    end = steps(text, "MA")
    before = torch.full((2,), float(value), dtype=torch.float64)
    m = math.exp(-0.1) * before - math.expm1(-0.1) * QUADRATIC.gradient(START)
    torch.testing.assert_close(end.position, START - 0.1 * m, rtol=1e-15, atol=0)


def test_a_constant_drift_moves_at_constant_speed():
    end = steps("A: dtheta/dt = -1", "A", count=3)
    torch.testing.assert_close(end.position, START - 0.3, rtol=1e-15, atol=0)


def test_a_loss_may_enter_an_equation():
    end = steps("A: dtheta/dt = -theta*L", "A")
    # L is held: θ decays exponentially at rate L.
    decay = math.exp(-0.1 * QUADRATIC.loss(START).item())
    torch.testing.assert_close(end.position, START * decay, rtol=1e-15, atol=0)


def test_time_may_enter_an_equation():
    solution = steps("A: dtheta/dt = -t*g", "A", count=2)
    assert torch.equal(solution.position, START - 0.1 * (0.1 * QUADRATIC.gradient(START)))


def test_sums_over_elements_may_hold_sums():
    end = steps("A: dtheta/dt = -total(total(g)*theta)*g/100", "A")
    gradient = QUADRATIC.gradient(START)
    total = (gradient.sum() * START).sum()
    torch.testing.assert_close(end.position, START - 0.1 * total * gradient / 100)


def test_a_large_whole_number_is_a_number():
    end = steps("A: dtheta/dt = -2**64*g", "A", step_size=2.0**-64)
    assert torch.equal(end.position, START - QUADRATIC.gradient(START))


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("2 + 3*4 - 6/4", 12.5),
        ("-g**2", -(1.3**2)),
        ("(-g)**2", 1.3**2),
        ("2**-1*g", 0.65),
        ("g**0.5", math.sqrt(1.3)),
        ("a**g", 2.5**1.3),
        ("2**theta", 2**0.7),
        ("1e-3 + .5 + 5_0 + 0x10", 66.501),
        ("abs(p) + sign(p)", 0.4 - 1),
        ("min(p, theta, 2) + max(p, theta, 0.9)", -0.4 + 0.9),
        ("max(g)", 1.3),
        ("sqrt(a) + exp(p) + log(a)", math.sqrt(2.5) + math.exp(-0.4) + math.log(2.5)),
        ("sin(g) + cos(g) + tanh(g)", math.sin(1.3) + math.cos(1.3) + math.tanh(1.3)),
        ("a/b/c*g", 2.5 / 2 / 4 * 1.3),
        ("a - b - c", 2.5 - 2 - 4),
        ("a/(b/c)", 2.5 / (2 / 4)),
        ("-(a - b)*(c - a)", -(2.5 - 2) * (4 - 2.5)),
        ("g/(theta + 1)**3 - 1/theta", 1.3 / 1.7**3 - 1 / 0.7),
        ("theta**(-a)", 0.7**-2.5),
        ("exp(-a*theta)/(1 - exp(-a*theta))", 1 / math.expm1(2.5 * 0.7)),
    ],
)
def test_a_formula_has_the_value_that_arithmetic_gives_it(formula, value):
    """As the printed and run drift of a variable, not as sympy understands it."""
    flow = fo.Flow.from_text(
        f"A: dtheta/dt = 0*g\nB: dp/dt = 0*g\nC: dq/dt = {formula}\nenergy all: a*b*c",
        a=2.5,
        b=2,
        c=4,
    )
    state = flow.initial_state(
        (torch.tensor(0.7, dtype=torch.float64),), torch.tensor(0), lambda _: None
    )
    leaf = torch.tensor(-0.4, dtype=torch.float64)
    state = state.updated({"p": (leaf,)})
    gradient = torch.tensor(1.3, dtype=torch.float64)
    evaluation = Evaluation(gradient, (gradient,))
    (drift,) = flow.drift(state, evaluation).variables["q"]
    assert drift.item() == pytest.approx(value, rel=1e-14)


def test_equations_in_python_are_those_of_the_text():
    friction = symbol("friction")
    written = fo.Equations(
        fo.Term("A", drift={theta: p}),
        fo.Term("B", drift={p: -g}),
        fo.Term("O", drift={p: -friction * p}),
        energies={"mechanical": LOSS + p**2 / 2},
    )
    text = "A: dtheta/dt = p\nB: dp/dt = -g\nO: dp/dt = -friction*p\nenergy mechanical: L + p**2/2"
    assert fo.Flow.from_text(text, friction=1.0).equations == written


def test_symbols_of_a_users_own_are_the_languages_own():
    plain = sympy.Symbol("theta"), sympy.Symbol("g")
    assert fo.Equations(fo.Term("A", drift={plain[0]: -plain[1]})) == fo.Equations(
        fo.Term("A", drift={theta: -g})
    )


def test_equations_do_not_depend_on_what_sympy_remembers():
    sympy.core.cache.clear_cache()
    flow = fo.Flow.from_text("A: dtheta/dt = p\nB: dp/dt = -g")
    assert [variable.name for variable in flow.equations.variables] == ["theta", "p"]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: fo.Term("AB", drift={theta: -g}), "letter is one of A…Z"),
        (lambda: fo.Term("A", drift={}), "moves no variable"),
        (lambda: fo.Term("A", drift={theta: "-g"}), "is no expression"),
        (lambda: fo.Term("A", drift={3: -g}), "3 is no variable"),
        (lambda: fo.Term("A", drift={theta: sympy.I * g}), "not a finite real formula"),
        (lambda: fo.Term("A", drift={g: theta}), "which the problem provides"),
        (lambda: fo.Equations(), "at least one term"),
        (lambda: fo.Equations("A"), "made of Term objects"),
        (lambda: fo.Flow("A: dtheta/dt = -g"), "use Flow.from_text for text"),
        (
            lambda: fo.Equations(fo.Term("A", drift={theta: -g}), fo.Term("A", drift={p: g})),
            "letter 'A' names two terms",
        ),
    ],
)
def test_wrong_equations_in_python_are_refused(make, match):
    with pytest.raises(fo.DefinitionError, match=match):
        make()


def test_a_function_without_torch_code_is_refused_where_it_is_printed():
    flow = fo.Flow(fo.Equations(fo.Term("A", drift={theta: -sympy.erf(g)})))
    with pytest.raises(fo.DefinitionError, match="no torch code for 'erf'"):
        flow.source("A")
