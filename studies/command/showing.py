"""`flowopt show NAME`: the equation, its step and what is known about both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import sympy
import torch

import flowopt as fo
from flowopt.errors import CompatibilityError
from flowopt.registry import FLOWS, METHODS, PARTITIONED
from studies.command.listing import flow_summary, method_summary
from studies.common.candidates import Candidate, candidate
from studies.common.tables import plain_table

# A longer equation is not read.
LONGEST_FORMULA = 160


def showing(
    specification: str,
    *,
    latex: bool = False,
    source: bool = False,
    kernel: bool = False,
    llvm: bool = False,
    ptx: bool = False,
) -> str:
    """What there is to know about a flow, a method or the flow of a text file.

    Args:
        specification: As `studies.common.candidates.candidate` reads it.
        latex: Only the equations, as LaTeX.
        source: Only the torch code of each letter's map.
        kernel: Only the operations of a step as native code has them.
        llvm: Only that native code, as LLVM IR.
        ptx: Only that code for a GPU, as PTX.

    Raises:
        FlowoptError: The specification names nothing that can be shown.
    """
    if specification in PARTITIONED:
        if latex or source or kernel or llvm or ptx:
            raise CompatibilityError(
                f"{specification} is a flow of several blocks: show one block's flow by its name"
            )
        return _blocks(specification)
    entry = candidate(specification)
    if latex:
        return entry.flow.latex()
    if source:
        return _source(entry)
    if kernel:
        return _kernel(entry, "#", lambda found: found.program)
    if llvm:
        return _kernel(entry, ";", lambda found: found.llvm)
    if ptx:
        return _kernel(entry, "//", lambda found: found.ptx)
    sections = [
        _title(entry),
        _section("Equation (g is the gradient of the loss L at theta)", _equations(entry)),
        _section("Start values", _starts(entry.flow)),
        _section("Hyperparameters", _hyperparameters(entry)),
        _section("Step", _step(entry)),
        _section("Energies", _energies(entry)),
        _section("On a quadratic loss, L = k*theta**2/2", _stability(entry)),
        _section("Followed to first order (H[x]: Hessian times x)", _modified(entry)),
        _section("Reference", [entry.flow.equations.reference or "none"]),
        _hint(specification, entry),
    ]
    return "\n\n".join(section for section in sections if section)


def _blocks(name: str) -> str:
    """A flow of blocks: the word, and each block's equation."""
    registered = PARTITIONED[name]
    flow = registered.build()
    assert isinstance(flow, fo.PartitionedFlow)
    words = ", ".join(registered.words)
    sections = [f"{name}: a flow of blocks, by one word for all of them: {words}"]
    for block, part in zip(flow.partition.blocks, flow.parts, strict=True):
        entry = replace(candidate(part.flow.name), flow=part.flow)
        meanings = part.meanings.items()
        own = [f"{letter} in the word: {word}" for letter, word in meanings if letter != word]
        title = f"Block {block.name}: {part.flow.name}"
        sections.append(_section(title, [*_equations(entry), *_hyperparameters(entry), *own]))
    return "\n\n".join(sections)


def _title(entry: Candidate) -> str:
    if entry.method is not None:
        return f"{entry.label}: {method_summary(entry.label.partition('@')[0])}"
    if entry.text is None:
        return f"{entry.label}: {flow_summary(entry.flow.name)}"
    return entry.label


def _section(title: str, lines: Iterable[str]) -> str:
    lines = list(lines)
    return "\n".join([title, *(f"  {line}" for line in lines)]) if lines else ""


def _equations(entry: Candidate) -> list[str]:
    """One line per letter and moved variable, with the kind of the letter's map."""
    choices = _moves(entry)
    rows = []
    for term in entry.flow.equations.terms:
        mark = f"{term.letter}:"
        move = choices.get(term.letter)
        kind = f"({_kind(entry.flow, move.letter, move.kind)})" if move else ""
        for variable in term.moved:
            right = _right_hand_side(
                term.drift.get(variable, sympy.S.Zero), term.amplitudes(variable)
            )
            rows.append((mark, f"d{variable} = {right}", kind))
            mark = kind = ""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        " ".join((row[0].ljust(widths[0]), row[1].ljust(widths[1]), "", row[2])).rstrip()
        for row in rows
    ]


def _right_hand_side(drift: sympy.Expr, amplitudes: dict[sympy.Symbol, sympy.Expr]) -> str:
    parts = [] if drift == 0 else [f"{_factor(drift)} dt"]
    for wiener, amplitude in amplitudes.items():
        name = "dW" if wiener.name.startswith("dW_") else wiener.name
        parts.append(f"{_factor(amplitude)} {name}")
    return " + ".join(parts) or "0"


def _factor(expression: sympy.Expr) -> str:
    return f"({expression})" if expression.is_Add else str(expression)


def _moves(entry: Candidate) -> dict:
    """Letter → its first move in the word; empty for schemes that use the summed drift."""
    moves = entry.scheme.moves if isinstance(entry.scheme, fo.Splitting) else ()
    return {letter: move for move in reversed(moves) for letter in move.letter}


def _kind(flow: fo.Flow, letters: str, kind: str | None) -> str:
    found = flow.kind(letters, kind)
    return f"{found}, jointly as {letters}" if len(letters) > 1 else found


def _starts(flow: fo.Flow) -> list[str]:
    equations = flow.equations
    moved = [*equations.variables[1:], *equations.scalars]
    lines = [f"{variable} = {equations.start.get(variable, 0)}" for variable in moved]
    if later := equations.later_start:
        values = ", ".join(f"{variable} = {value}" for variable, value in later.values.items())
        lines.append(
            f"schemes on the summed drift begin at t = {later.time.evalf(3)}, with {values}"
        )
    return lines


def _hyperparameters(entry: Candidate) -> list[str]:
    """Values, and for a method the formulas of its classic hyperparameters that give them."""
    flow, method = entry.flow, entry.method
    formulas = {} if method is None else method.rule.hyperparameters
    rows = []
    for name, value in flow.hyperparameters.items():
        formula = str(formulas.get(name, name))
        origin = "" if formula == name else f"= {formula}"
        unit = "rate × h" if name in flow.per_step else ""
        rows.append((name, f"= {float(value):.6g}", origin, unit))
    for name, value in ({} if method is None else method.settings).items():
        if name not in flow.hyperparameters and float(value):
            rows.append((name, f"= {float(value):.6g}", "", "classic"))
    return _lines(rows)


def _lines(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows in aligned columns."""
    return plain_table(rows[0], rows[1:]).splitlines() if rows else []


def _step(entry: Candidate) -> list[str]:
    flow, scheme = entry.flow, entry.scheme
    order = scheme.order(flow)
    formula = "" if entry.method is None else f" = {entry.method.rule.step_size}"
    kind = "word" if isinstance(scheme, fo.Splitting) else "scheme"
    rows = [
        (kind, entry.word),
        ("step size", f"h{formula} = {entry.step_size:.6g}"),
        ("order", "exact" if order == float("inf") else f"{order:g}" + _weak(flow)),
        ("gradients per step", f"{scheme.gradient_evaluations(flow)}"),
        ("closure-free", "yes" if scheme.closure_free(flow) else "no"),
    ]
    if kind == "word":
        rows.append(("other words", ", ".join(_other_words(entry)) or "–"))
    return _lines(rows)


def _weak(flow: fo.Flow) -> str:
    return " (weak: of averages)" if flow.noisy else ""


def _other_words(entry: Candidate) -> list[str]:
    if entry.method is not None or entry.flow.name not in FLOWS:
        return []
    return [word for word in FLOWS[entry.flow.name].words if word != entry.word]


def _energies(entry: Candidate) -> list[str]:
    flow, lines = _in_time(entry), []
    for name in flow.energies:
        found = fo.analysis.certify(flow, name)
        lines.append(f"{name} = {flow.equations.energies[name]}")
        reason = f"not derived ({found.steps[0]})" if found.rate is None else f"= {found.rate}"
        lines.append(f"  d/dt{':' if found.rate is None else ''} {reason}")
        if found.rate is not None:
            lines.append(f"  {found.summary}")
    if lines:
        lines.append("(terms that have a value per parameter are summed over the parameters)")
    return lines


def _in_time(entry: Candidate) -> fo.Flow:
    """The flow with rates in time."""
    flow = entry.flow
    return flow.at_step_size(entry.step_size) if flow.per_step else flow


def _stability(entry: Candidate) -> list[str]:
    try:
        return list(fo.analysis.stability(entry.flow, entry.scheme).summary)
    except CompatibilityError:
        return []


def _modified(entry: Candidate) -> list[str]:
    """The corrected equation, where it is short enough to be read."""
    try:
        found = fo.analysis.modified_equation(_in_time(entry), entry.scheme, order=1)
    except CompatibilityError:
        return []
    lines = [line.strip() for line in str(found).splitlines()[1:]]
    return lines if max(map(len, lines)) <= LONGEST_FORMULA else []


def _hint(specification: str, entry: Candidate) -> str:
    """Names the flow where a method hides it."""
    name = specification.partition("@")[0]
    if entry.method is None or name not in FLOWS or name not in METHODS:
        return ""
    return f"The flow {name} by itself: flowopt show {name}:{FLOWS[name].words[0]}"


def _source(entry: Candidate) -> str:
    if not isinstance(entry.scheme, fo.Splitting):
        moves = fo.Splitting("".join(entry.flow.letters)).moves
    else:
        moves = entry.scheme.moves
    sources = {(move.letter, move.kind, move.parts): entry.flow.source(*move[:3]) for move in moves}
    return "\n\n".join(
        f"# {letter}, {entry.flow.kind(letter, kind)}, over 1/{parts} of a step\n{text.strip()}"
        for (letter, kind, parts), text in sources.items()
    )


def _kernel(entry: Candidate, mark: str, text: Callable[..., str]) -> str:
    """A text of a step's kernel on the rosenbrock problem, or why there is none."""
    problem = fo.problems.rosenbrock()
    start = torch.tensor([[-1.5, 1.0], [0.0, 0.0]], dtype=torch.float64)
    title = f"{mark} {entry.label} on rosenbrock, h = {entry.step_size:.6g}"
    try:
        found = fo.describe_kernel(
            entry.flow, entry.scheme, problem, start, step_size=entry.step_size
        )
        return f"{title}\n\n{text(found)}"
    except CompatibilityError as error:
        return f"{title}: no kernel, eager torch steps: {error}"
