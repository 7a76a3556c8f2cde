"""Equations as text: what is understood, what is refused in which words; nothing is run."""

import builtins
import contextlib
import math

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import flowopt as fo
from flowopt.core.evaluation import Evaluation
from flowopt.symbolic.text import VOCABULARY, parse_formula
from flowopt.symbols import LOSS, g, p, symbol, theta

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([1.0, 2.0], dtype=torch.float64)


def refused(text, match, **hyperparameters):
    with pytest.raises(fo.DefinitionError, match=match) as caught:
        fo.Flow.from_text(text, **hyperparameters)
    return str(caught.value)


def steps(text, word, count=1, step_size=0.1, **hyperparameters):
    flow = fo.Flow.from_text(text, **hyperparameters)
    return fo.integrate(
        flow, fo.Splitting(word), QUADRATIC, START, step_size=step_size, steps=count
    )


@pytest.fixture
def canary(monkeypatch):
    """A function that any text could call by its name, if text were run; the list of its calls."""
    calls = []
    monkeypatch.setattr(builtins, "canary", lambda *_: calls.append(1) or 1.0, raising=False)
    return calls


@pytest.mark.parametrize(
    "formula",
    [
        "canary()",
        "canary(g)",
        "exp(canary())",
        "__import__('builtins').canary()",
        "(lambda: canary())()",
        "[canary() for x in (1,)][0]",
        "f'{canary()}'",
        "(x := canary())",
        "g if canary() else g",
        "g[canary()]",
        "g.canary()",
        "canary() or g",
        "-g; canary()",
        "-g\rcanary()",
        "-g\x0bcanary()",
        "-g # \u2028canary()",
        "eval('canary()')",
        "total(canary)",
    ],
)
@pytest.mark.parametrize(
    "line",
    ["A: dtheta/dt = {}", "energy e: {}", "start m = {}", "parameter a = {}", "A: d{}/dt = g"],
)
def test_text_does_not_run(canary, formula, line):
    text = "A: dm/dt = g\nB: dtheta/dt = -a*m\n" + line.format(formula)
    with pytest.raises(fo.DefinitionError):
        steps(text, "AB", a=1.0)
    assert not canary


@pytest.mark.parametrize("line", ["reference: canary()", "reference: {canary()}", "# canary()"])
def test_text_beside_formulas_does_not_run_either(canary, line):
    steps(f"A: dtheta/dt = -g\n{line}", "A")
    assert not canary


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').system('true')",
        "eval('1')",
        "g.__class__.__base__.__subclasses__()",
        "g.real",
        "(lambda: 1)()",
        "[x for x in (1, 2)]",
        "{x for x in (1, 2)}",
        "[g][0]",
        "{1: g}",
        "(g, g)",
        "'text'",
        "b'bytes'",
        "f'{g}'",
        "1 if g else 2",
        "g and theta",
        "not g",
        "~g",
        "g < 1",
        "g == 1",
        "(x := g)",
        "g @ g",
        "g // 2",
        "g % 2",
        "g << 2",
        "g ^ 2",
        "exp(*g)",
        "exp(g, base=2)",
        "exp()",
        "sqrt(g)(g)",
        "...",
        "True * g",
        "None",
        "1j * g",
        "await g",
        "yield",
    ],
)
def test_what_is_no_formula_is_refused(formula):
    refused(f"A: dtheta/dt = {formula}", "is not allowed|is no real number|is no formula")


@pytest.mark.parametrize(
    "formula",
    [
        "-g; import os",
        "-g\x00",
        "-g \\",
        "-(g",
        "-g)",
        "-g +",
        "",
        "-2g",
        "2 g",
        "-g = 1",
        "∇L",
        "g\u200b",
    ],
)
def test_broken_formulas_are_refused(formula):
    refused(f"A: dtheta/dt = {formula}", "is no formula")


@pytest.mark.parametrize("name", ["lambda", "class", "import", "while"])
def test_keywords_of_python_name_nothing(name):
    refused(f"A: dtheta/dt = -{name}*g", "is no formula")
    refused(f"A: dtheta/dt = -g\nB: d{name}/dt = g", "can not name a quantity")
    refused(f"A: dtheta/dt = -g\nenergy {name}: L", "can not name a quantity")


@pytest.mark.parametrize(
    ("formula", "match"),
    [
        ("9**9**9", "exponent 387420489 is too large"),
        ("g**65", "exponent 65 is too large"),
        ("g**-65", "exponent -65 is too large"),
        ("(10**64)**64", "number is too large"),
        ("1e400*g", "number inf is too large"),
        ("1e301*g", "is too large"),
        ("exp(1000)*g", "number is too large"),
        ("exp(exp(exp(9)))*g", "number is too large"),
    ],
)
def test_numbers_that_are_too_large_are_refused(formula, match):
    refused(f"A: dtheta/dt = {formula}", match)


@pytest.mark.parametrize(
    "formula",
    [
        "(" * 300 + "g" + ")" * 300,
        "-" * 5000 + "g",
        "+".join(["g"] * 6000),
        "sqrt(" * 3000 + "g" + ")" * 3000,
    ],
    ids=["parentheses", "signs", "sums", "roots"],
)
def test_deep_nesting_is_refused(formula):
    refused(f"A: dtheta/dt = {formula}", "is no formula|nested too deeply")


def test_a_huge_text_is_refused_unread():
    refused("A: dtheta/dt = -g\n" * 2000, "the text has 36000 characters, at most 20000")


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_formula_is_read_or_refused(text):
    with contextlib.suppress(fo.DefinitionError):
        assert isinstance(parse_formula(text), sympy.Expr)


@given(st.text(alphabet="ABdthetapgmv/=:*+-() \n01.energyscalar#", max_size=120))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(fo.DefinitionError):
        fo.Flow.from_text(text)


@pytest.mark.parametrize("text", [None, 3, b"A: dtheta/dt = -g", ["A: dtheta/dt = -g"]])
def test_what_is_no_text_is_refused(text):
    refused(text, f"equations are text, got {type(text).__name__}")


@pytest.mark.parametrize("text", ["", "   \n\n", "# only a comment", "energy e: L"])
def test_a_text_without_equations_is_refused(text):
    refused(text, "the text has no equation; lines are 'A: dtheta/dt = p'")


@pytest.mark.parametrize(
    "line",
    [
        "dtheta/dt = -g",
        "A: theta = -g",
        "A: dtheta/dt -g",
        "A: dtheta = -g*dt",
        "A: theta' = -g",
        "A:",
        "energy: L",
        "start m",
        "parameter a",
        "scalar",
        "something else",
    ],
)
def test_a_line_that_is_not_understood_is_named_with_what_lines_there_are(line):
    message = refused(f"M: dm/dt = g\n{line}", "not understood; lines are")
    assert message.startswith(f"line 2, {line!r}:")


@pytest.mark.parametrize("letter", ["AB", "a", "1", "É", ""])
def test_a_term_is_named_by_one_capital_letter(letter):
    refused(f"{letter}: dtheta/dt = -g", r"named by one letter A…Z|not understood")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ("A: dtheta/dt = -g\nA: dtheta/dt = -p", "term 'A' has two equations for 'theta'"),
        ("A: dtheta/dt = -g\nenergy e: L\nenergy e: 2*L", "energy 'e' is given twice"),
        ("A: dtheta/dt = -m\nM: dm/dt = g\nstart m = g\nstart m = 0", "start 'm' is given twice"),
        ("A: dtheta/dt = -a*g\nparameter a = 1\nparameter a = 2", "parameter 'a' is given twice"),
    ],
)
def test_what_is_said_twice_is_refused(lines, match):
    refused(lines, match)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ("B: dp/dt = -g", "no term moves theta"),
        ("A: dg/dt = -g", "'g' belongs to the vocabulary"),
        ("A: dL/dt = -g", "'L' belongs to the vocabulary"),
        ("A: dt/dt = 1", "'t' belongs to the vocabulary"),
        ("A: dexp/dt = -g", "'exp' belongs to the vocabulary"),
        ("A: dtotal/dt = -g", "'total' is reserved"),
        ("A: dstep_size/dt = -g", "'step_size' is reserved"),
        ("A: ddt/dt = -g", "'dt' is reserved"),
        ("A: dm_/dt = -g", "'m_' can not name a quantity"),
        ("A: d_m/dt = -g", "'_m' can not name a quantity"),
        ("A: ddW/dt = -g\nB: dtheta/dt = -g", "'dW', which names a Wiener process"),
        ("A: dtheta/dt = -g\nstart theta = 1", "'theta' has a start value but no equation"),
        ("A: dtheta/dt = -g\nstart v = 1", "'v' has a start value but no equation"),
        ("A: dtheta/dt = -g\nscalar u", "scalar 'u' is moved by no term"),
        ("A: dtheta/dt = -g\nparameter a = 1", "parameter 'a' occurs in no equation"),
        ("A: dtheta/dt = -a*g\nparameter a = b", "a parameter line gives a number, got b"),
        ("A: dtheta/dt = -u*g\nU: du/dt = g\nscalar u", r"wrap that in total\(...\)"),
        ("A: dtheta/dt = -g\nenergy e: dW*L", "energy 'e' contains noise"),
    ],
)
def test_equations_that_make_no_sense_are_refused(lines, match):
    refused(lines, match)


@pytest.mark.parametrize(
    "formula", ["g/0", "g/(1 - 1)", "g/(theta - theta)", "0**(-1)*g", "log(0)*g"]
)
def test_division_by_zero_is_refused(formula):
    refused(f"A: dtheta/dt = {formula}", "division by zero|is no real number")


@pytest.mark.parametrize("formula", ["sqrt(-1)*g", "log(-1)*g", "(-1)**0.5*g", "(-8)**(1/3)*g"])
def test_numbers_that_are_not_real_are_refused(formula):
    refused(f"A: dtheta/dt = {formula}", "is no real number")


def test_an_unknown_function_is_refused_with_the_known_ones():
    message = refused("A: dtheta/dt = -grad(L)", "unknown function 'grad'")
    for name in ("total", "sign", "abs", "sqrt", "exp", "log", "sin", "cos", "tanh", "min", "max"):
        assert name in message


def test_a_function_has_one_argument():
    refused("A: dtheta/dt = exp(g, g)", r"exp\(\) takes one argument, got 2")


def test_a_function_without_parentheses_is_explained():
    refused("A: dtheta/dt = -exp", r"'exp' is a function: write exp\(…\)")


def test_an_unknown_name_is_refused_with_all_that_there_are():
    message = refused("A: dtheta/dt = -frictoin*m\nM: dm/dt = g - m", "frictoin", friction=1.0)
    assert "did you mean 'friction'?" in message
    for name in (*VOCABULARY, "'m'", "'friction'"):
        assert name in message


def test_a_vocabulary_name_without_an_equation_is_not_suggested_for_itself():
    assert "did you mean 'p'" not in refused("A: dtheta/dt = p", "unknown name 'p'")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({}, "unknown name 'a'"),
        ({"a": 1.0, "b": 2.0}, r"unknown: \['b'\]"),
        ({"a": "1"}, "a = '1' is no real number"),
        ({"a": None}, "a = None is no real number"),
        ({"a": True}, "a = True is no real number"),
        ({"a": 1j}, "is no real number"),
        ({"a": [1.0]}, "is no real number"),
        ({"a": math.nan}, "a is not a number"),
    ],
)
def test_a_hyperparameter_is_a_real_number(values, match):
    refused("A: dtheta/dt = -a*g", match, **values)


@pytest.mark.parametrize("name", ["name", "per_step", "step_size", "torch", "phi1"])
def test_a_name_that_means_something_else_is_refused_as_hyperparameter(name):
    refused(f"A: dtheta/dt = -{name}*g", f"{name!r} is reserved")


@pytest.mark.parametrize(
    "formula",
    [
        "-dt",
        "-dW",
        "-g*dt",
        "-g + dW**2/dt",
        "-g + dW1*dW2/dt",
        "-g + dW*dt",
        "exp(dW/dt)",
        "dW/dt**2",
    ],
)
def test_noise_enters_as_amplitude_times_dw_over_dt(formula):
    refused(f"A: dtheta/dt = {formula}", "noise enters as amplitude")


def test_terms_share_no_noise():
    refused(
        "A: dtheta/dt = -g + dW/dt\nB: dp/dt = dW/dt",
        "terms 'A' and 'B' share the noise 'dW': name another",
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
