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
from flowopt.symbolic.text import VOCABULARY, parse_formula

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
