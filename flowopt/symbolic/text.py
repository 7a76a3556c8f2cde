"""The text form of equations, read through a whitelist: text from a stranger can not run code.

A: dtheta/dt = p
B: dp/dt = -g
O: dp/dt = -friction*p + sqrt(2*friction*temperature)*dW/dt
energy mechanical: L + p**2/2
start p = 0
later t = 1e-6
later p = -g*t
parameter friction = 1.0
scalar u_m
reference: Langevin 1908
"""

import ast
import difflib
import math
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field

import sympy

from flowopt.errors import DefinitionError
from flowopt.symbolic.functions import damped, total
from flowopt.symbolic.language import (
    GIVEN,
    LOSS,
    Equations,
    LaterStart,
    Term,
    channel,
    g,
    p,
    symbol,
    t,
    theta,
)

MOST_CHARACTERS = 20_000
LARGEST_EXPONENT = 64
LARGEST_NUMBER = 1e300
FUNCTIONS = {
    "total": total,
    "sign": sympy.sign,
    "abs": sympy.Abs,
    "sqrt": sympy.sqrt,
    "exp": sympy.exp,
    "log": sympy.log,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tanh": sympy.tanh,
    "damped": damped,
    "min": sympy.Min,
    "max": sympy.Max,
}
VARIADIC = {"min", "max"}
QUANTITIES = {"theta": theta, "p": p, "g": g, "L": LOSS, "t": t}
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
VOCABULARY = (*QUANTITIES, *FUNCTIONS, "dW", "dW1", "dW2", "…")
DT = sympy.Symbol("dt", real=True)

BYTE_ORDER_MARK = "\ufeff"
WORD = re.compile(r"\w+")
EQUATION = re.compile(r"(?P<letter>[^:=\s]*)\s*:\s*d(?P<variable>\w+)\s*/\s*dt\s*=(?P<formula>.*)")
ENERGY = re.compile(r"energy\s+(?P<name>\w+)\s*:(?P<formula>.*)")
START = re.compile(r"start\s+(?P<name>\w+)\s*=(?P<formula>.*)")
LATER = re.compile(r"later\s+(?P<name>\w+)\s*=(?P<formula>.*)")
PARAMETER = re.compile(r"parameter\s+(?P<name>\w+)\s*=(?P<formula>.*)")
SCALAR = re.compile(r"scalar\s+(?P<name>\w+)\s*")
REFERENCE = re.compile(r"reference\s*:(?P<formula>.*)")
FORMS = (
    "'A: dtheta/dt = p' (letter, equation), 'energy NAME: formula', 'start v = formula', "
    "'later t = time', 'later v = formula', 'parameter friction = 1.0', 'scalar u_m', "
    "'reference: text'"
)


@dataclass
class _Reading:
    """What has been read so far."""

    drifts: dict[str, dict] = field(default_factory=dict)
    noises: dict[str, dict] = field(default_factory=dict)
    energies: dict[str, sympy.Expr] = field(default_factory=dict)
    start: dict[str, sympy.Expr] = field(default_factory=dict)
    later: dict[str, sympy.Expr] = field(default_factory=dict)
    parameters: dict[str, float] = field(default_factory=dict)
    scalars: list[str] = field(default_factory=list)
    reference: str = ""


def parse(text: str) -> tuple[Equations, dict[str, float]]:
    """Equations, and the values of `parameter` lines, from text.

    Raises:
        DefinitionError: The text is empty, too long or malformed; the message names the line.
    """
    if not isinstance(text, str):
        raise DefinitionError(f"equations are text, got {type(text).__name__}")
    if len(text) > MOST_CHARACTERS:
        raise DefinitionError(
            f"the text has {len(text)} characters, at most {MOST_CHARACTERS} are read"
        )
    reading = _Reading()
    text = WORD.sub(_normalised, text.removeprefix(BYTE_ORDER_MARK))
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split("#")[0].strip()
        if content:
            try:
                _read_line(content, reading)
            except DefinitionError as error:
                raise DefinitionError(f"line {number}, {content!r}: {error}") from error
    if not reading.drifts:
        raise DefinitionError(f"the text has no equation; lines are {FORMS}")
    terms = [Term(x, drift, reading.noises[x]) for x, drift in reading.drifts.items()]
    equations = Equations(
        *terms,
        energies=reading.energies,
        start=reading.start,
        scalars=reading.scalars,
        reference=reading.reference,
        later_start=_later_start(reading.later),
    )
    _check_parameters(equations, reading)
    return equations, reading.parameters


def parse_formula(text: str) -> sympy.Expr:
    """A formula from text.

    Raises:
        DefinitionError: The text is no formula of the vocabulary.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DefinitionError(f"{text.strip()!r} is no formula: {error}") from error
    try:
        return _convert(tree.body)
    except RecursionError as error:
        raise DefinitionError("the formula is nested too deeply") from error


def _normalised(match: re.Match) -> str:
    """A name as Python's parser reads it; 5² is no name, and must not become 52."""
    word = match[0]
    return unicodedata.normalize("NFKC", word) if word.isidentifier() else word


def _read_line(line: str, reading: _Reading) -> None:
    if match := ENERGY.fullmatch(line):
        _once(reading.energies, "energy", match["name"], parse_formula(match["formula"]))
    elif match := START.fullmatch(line):
        _once(reading.start, "start", match["name"], parse_formula(match["formula"]))
    elif match := LATER.fullmatch(line):
        _once(reading.later, "later", match["name"], parse_formula(match["formula"]))
    elif match := PARAMETER.fullmatch(line):
        value = parse_formula(match["formula"])
        if value.free_symbols:
            raise DefinitionError(f"a parameter line gives a number, got {value}")
        _once(reading.parameters, "parameter", match["name"], float(value))
    elif match := SCALAR.fullmatch(line):
        reading.scalars.append(symbol(match["name"]).name)
    elif match := REFERENCE.fullmatch(line):
        reading.reference = match["formula"].strip()
    elif match := EQUATION.fullmatch(line):
        _read_equation(match, reading)
    else:
        raise DefinitionError(f"not understood; lines are {FORMS}")


def _later_start(later: dict[str, sympy.Expr]) -> LaterStart | None:
    if not later:
        return None
    if "t" not in later:
        raise DefinitionError(
            f"{' and '.join(f'later {name}' for name in later)}: say when, as in 'later t = 1e-6'"
        )
    return LaterStart(later["t"], {symbol(n): f for n, f in later.items() if n != "t"})


def _once(table: dict, what: str, name: str, value: object) -> None:
    symbol(name)
    if name in table:
        raise DefinitionError(f"{what} {name!r} is given twice")
    table[name] = value


def _read_equation(match: re.Match, reading: _Reading) -> None:
    letter, variable = match["letter"], match["variable"]
    if not re.fullmatch("[A-Z]", letter):
        raise DefinitionError(f"a term is named by one letter A…Z, got {letter!r}: write 'A: …'")
    if symbol(variable) in GIVEN or variable in FUNCTIONS:
        raise DefinitionError(f"{variable!r} belongs to the vocabulary: name another variable")
    drift, noise = _split_noise(parse_formula(match["formula"]))
    drifts = reading.drifts.setdefault(letter, {})
    noises = reading.noises.setdefault(letter, {})
    if variable in drifts:
        raise DefinitionError(f"term {letter!r} has two equations for {variable!r}: add them up")
    drifts[variable] = drift
    if noise != 0:
        noises[variable] = noise


def _split_noise(formula: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr]:
    """Drift and noise of a right-hand side that is linear in dW/dt."""
    wieners = [s for s in formula.free_symbols if s.name.startswith("dW")]
    if not wieners and DT not in formula.free_symbols:
        return formula, sympy.S.Zero
    drift = formula.xreplace(dict.fromkeys(wieners, sympy.S.Zero))
    noise = sympy.Add(*(w * formula.diff(w) * DT for w in wieners))
    bad = DT in drift.free_symbols | noise.free_symbols
    if bad or any(formula.diff(w).has(*wieners) for w in wieners):
        raise DefinitionError("noise enters as amplitude*dW/dt, and dt nowhere else")
    return drift, noise


def _convert(node: ast.AST) -> sympy.Expr:
    match node:
        case ast.Constant(value=bool() | str() | bytes() | complex() | None):
            raise DefinitionError(f"{node.value!r} is no real number")
        case ast.Constant(value=int() | float() as value):
            return _number(value)
        case ast.Name():
            return _name(node.id)
        case ast.UnaryOp(op=ast.USub()):
            return -_convert(node.operand)
        case ast.UnaryOp(op=ast.UAdd()):
            return _convert(node.operand)
        case ast.BinOp() if type(node.op) in OPERATORS:
            operands = _convert(node.left), _convert(node.right)
            return _sized(_operation(type(node.op), *operands))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if node.args:
            return _sized(_call(name, [_convert(argument) for argument in node.args]))
    raise DefinitionError(
        f"{ast.unparse(node)!r} is not allowed: formulas have numbers, names, + - * / ** and "
        f"calls of {', '.join(FUNCTIONS)}"
    )


def _number(value: float) -> sympy.Expr:
    if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
        raise DefinitionError(f"the number {value!r} is too large")
    if isinstance(value, int):
        return sympy.Integer(value)
    return sympy.Float(value)


def _sized(value: sympy.Expr) -> sympy.Expr:
    """The value, unless it is a number that float64 can not hold."""
    if value.is_number and not value.has(total):
        try:
            size = abs(float(value))
        except OverflowError:
            size = math.inf
        if not size <= LARGEST_NUMBER:
            raise DefinitionError(f"a number is too large: at most {LARGEST_NUMBER:g} in size")
    return value


def _name(name: str) -> sympy.Expr:
    if name == "dt":
        return DT
    if re.fullmatch(r"dW\d*", name):
        return channel(name)
    if name in FUNCTIONS:
        raise DefinitionError(f"{name!r} is a function: write {name}(…)")
    return symbol(name)


def _operation(kind: type, left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
    if kind is ast.Add:
        return left + right
    if kind is ast.Sub:
        return left - right
    if kind is ast.Mult:
        return left * right
    if kind is ast.Div:
        if right == 0:
            raise DefinitionError(f"division by zero in {left}/{right}")
        return left / right
    if right.is_Number and abs(right) > LARGEST_EXPONENT:
        raise DefinitionError(
            f"the exponent {right} is too large: at most {LARGEST_EXPONENT} in size"
        )
    if left.is_Number and left <= 0 and not right.is_Integer:
        raise DefinitionError(f"({left})**({right}) is no real number")
    if left == 0 and right.is_negative:
        raise DefinitionError(f"division by zero in {left}**({right})")
    return left**right


def _call(name: str, arguments: list[sympy.Expr]) -> sympy.Expr:
    if name not in FUNCTIONS:
        raise DefinitionError(f"unknown function {name!r}: known are {', '.join(FUNCTIONS)}")
    takes, expected = (2, "two arguments") if name == "damped" else (1, "one argument")
    if len(arguments) != takes and name not in VARIADIC:
        raise DefinitionError(f"{name}() takes {expected}, got {len(arguments)}")
    value = FUNCTIONS[name](*arguments)
    if value.has(sympy.I, sympy.zoo, sympy.nan, sympy.oo):
        raise DefinitionError(f"{name}({', '.join(map(str, arguments))}) is no real number")
    return value


def check_names(equations: Equations, values: Collection[str]) -> None:
    """Every name of a text is vocabulary, a variable of the method or a given hyperparameter.

    Raises:
        DefinitionError: A name is none of them; the message lists all three.
    """
    variables = [v.name for v in (*equations.variables, *equations.scalars)]
    for name in equations.hyperparameters:
        if name not in values:
            known = [x for x in (*VOCABULARY, *variables, *values) if x != name]
            close = difflib.get_close_matches(name, known, n=1)
            raise DefinitionError(
                f"unknown name {name!r}"
                + (f", did you mean {close[0]!r}?" if close else ".")
                + f" The vocabulary is {' '.join(VOCABULARY)}; variables with an equation are "
                f"{variables}; hyperparameters with a value are {sorted(values)}: give {name!r} a "
                f"value by keyword, {name}=…, or by a line 'parameter {name} = …'"
            )


def _check_parameters(equations: Equations, reading: _Reading) -> None:
    for name in reading.parameters:
        if name not in equations.hyperparameters:
            raise DefinitionError(
                f"parameter {name!r} occurs in no equation: names left open are "
                f"{list(equations.hyperparameters)}"
            )
