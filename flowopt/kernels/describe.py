"""A kernel's program for readers: one operation per line, named after the equation's symbols."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from flowopt.kernels.batch import shared_places
from flowopt.kernels.device.ptx import assemble, print_device
from flowopt.kernels.drawing import Draws
from flowopt.kernels.engine import check_place
from flowopt.kernels.inputs import Inputs, flattened, inputs_of, unflattened
from flowopt.kernels.loop import Loop, as_loop
from flowopt.kernels.native.machine import this_machine
from flowopt.kernels.native.trajectories import print_trajectories
from flowopt.kernels.program import FLOATS, Node
from flowopt.kernels.step import Traces
from flowopt.kernels.tracing.traced import Rows

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "and": "and",
    "or": "or",
    "xor": "^",
    "shl": "<<",
    "shr": ">>",
}
# Marks what has a value for each element of a leaf.
EVERY = "[i]"
ROWS = "rows: for every row of the data; the {} over rows is what the step sees"
TYPES = {"f64": "float64", "f32": "float32", "i64": "int64", "bool": "bool"}


@dataclass(frozen=True)
class Description:
    """A step as a kernel has it; `str` is the program.

    Attributes:
        program: Operations in order: what is computed once, once per step, for every trajectory,
            when a trajectory ends; then what the next step starts from. A prime marks new values.
        llvm: LLVM IR of the whole loop, for this machine.
        loop: What both are printed from.
    """

    program: str
    llvm: str
    loop: Loop = field(repr=False)

    @cached_property
    def ptx(self) -> str:
        """Assembly of the same loop for a GPU, one trajectory per thread; none is needed for it.

        Raises:
            UnfitError: This build of llvmlite has no target for GPUs.
        """
        return assemble(print_device(self.loop).text)

    def __str__(self) -> str:
        """The program."""
        return self.program


def describe(stepper: Any, carry: Any) -> Description:
    """What a kernel for this stepper does in a step; nothing is compiled.

    Args:
        stepper: Joins flow, scheme, control, problem and noise.
        carry: Where the trajectories are.

    Raises:
        UnfitError: There is no kernel for this stepper; the message says why.
    """
    check_place(stepper, carry.state)
    order = Draws(stepper, 0, carry.state.batch).ahead(carry.state.step, 1)
    inputs = inputs_of(stepper, carry, order=order)
    traced = Traces().get(stepper, inputs).step.traced
    loop = as_loop(traced, inputs.status, shared_places(inputs._replace(unknown=frozenset())))
    llvm = print_trajectories(loop, this_machine()).text
    return Description(_Listing(loop, _names(stepper, inputs)).text(), llvm, loop)


class _Listing:
    """Names and lines of a loop's values."""

    def __init__(self, loop: Loop, names: list[list[str]]):
        self.loop, self.program = loop, loop.program
        self.names: dict[int, str] = {}
        self.tables = names
        self.serial = 0
        for index, node in enumerate(self.program.nodes):
            if node.op == "input":
                self.names[index] = _input_name(node.data[0], node.data[1], names)
        self.body = self._needed([loop.goes, *(c.going for c in loop.carried)])
        self.end = set(self._needed(c.ending for c in loop.carried)) - set(self.body)
        for carried in loop.carried:
            self._name(carried.going, f"{self.names[carried.start]}'")
        self._name(loop.goes, "goes_on")

    def text(self) -> str:
        """All sections that are not empty."""
        loop = self.loop
        used = sorted({*self.body, *self.end})
        once = [i for i in used if i in loop.constant]
        step = [i for i in self.body if i not in loop.constant]
        sections = {
            "once, before the first step": [i for i in once if i in loop.uniform],
            "once for every trajectory": [i for i in once if i not in loop.uniform],
            "once per step": [i for i in step if i in loop.uniform],
            "for every trajectory, at every step": [i for i in step if i not in loop.uniform],
            "for a trajectory that ends": [i for i in sorted(self.end) if i not in loop.constant],
        }
        # Numbers are given in order of appearance in the text, so sections are written in order.
        written = {title: [*filter(None, map(self._line, v))] for title, v in sections.items()}
        written["the next step starts from"] = self._carried()
        if loop.rows:
            written[ROWS.format("mean" if loop.rows.mean else "sum")] = _row_lines(loop.rows)
        return "\n\n".join(
            "\n".join([f"# {title}", *lines]) for title, lines in written.items() if lines
        )

    def _carried(self) -> list[str]:
        lines = []
        for carried in self.loop.carried:
            name, end = self.names[carried.start], self._of(carried.ending)
            going = self._of(carried.going)
            if carried.slot == self.loop.status:
                lines.append(f"{name} = {end}, and goes on where goes_on")
                continue
            shared = "  (shared)" if carried.uniform else ""
            kept = f"; {end} where it ends" if end != going else ""
            lines.append(f"{name} = {going}{kept}{shared}")
        return lines

    def _needed(self, roots: Iterable[int]) -> list[int]:
        return self.program.needed(roots, stop=self.program.notes)

    def _name(self, index: int, name: str) -> None:
        if index not in self.names and self.program.value(index) is None:
            self.names[index] = name

    def _of(self, index: int) -> str:
        if index not in self.names:
            node = self.program.nodes[index]
            if node.op == "constant":
                return f"{self.program.value(index):.17g}" if node.dtype in FLOATS else node.data
            self.serial += 1
            self.names[index] = f"%{self.serial}" + (EVERY if node.size > 1 else "")
        return self.names[index]

    def _line(self, index: int) -> str:
        node = self.program.nodes[index]
        if node.op in ("constant", "input"):
            return ""
        note = self.program.notes.get(index)
        right = note or self._operation(node)
        return f"{self._of(index)} = {right}"

    def _operation(self, node: Node) -> str:
        operands = [self._of(a) for a in node.args]
        if node.op == "place":
            return "i"
        if node.op == "part":
            leaf = f".gradient_{node.data - 1}" if node.data else ".loss"
            return operands[0] + leaf + (EVERY if node.size > 1 else "")
        if node.op in INFIX:
            return f" {INFIX[node.op]} ".join(operands)
        if node.op == "select":
            return f"{operands[1]} if {operands[0]} else {operands[2]}"
        if node.op in ("neg", "not"):
            return {"neg": "-", "not": "not "}[node.op] + operands[0]
        if node.op == "gather":
            return _input_name(node.data, operands[0], self.tables)
        if node.op == "length":
            return f"len({_input_name(node.data, None, self.tables).removesuffix(EVERY)})"
        names = {"convert": TYPES[node.dtype], "wrap": f"int{node.data}", "total": "sum"}
        name = names.get(node.op, node.op)
        return f"{name}({', '.join(operands)})"


def _input_name(slot: int, element: int | str | None, names: list[list[str]]) -> str:
    if slot >= len(names):
        # What a loss closes over comes after the inputs of the step.
        return f"data_{slot - len(names)}[{element}]"
    known = names[slot]
    if isinstance(element, int):
        return known[element]
    every = known[0].removesuffix("_0")
    return every + (EVERY if element is None else f"[{element}]")


def _row_lines(rows: Rows) -> list[str]:
    """Loss and gradient of one row."""
    program, arguments = rows.traced.program, rows.traced.arguments
    leaves = len(arguments) - len(rows.slots)
    kinds = [f"theta_{place}" for place in range(leaves)]
    kinds += [f"row_{place}" for place in range(len(rows.slots))]
    names = [
        [f"{kind}[{element}]" for element in range(math.prod(argument.shape))]
        for kind, argument in zip(kinds, arguments, strict=True)
    ]
    results = rows.results()
    roots = [value for values in results for value in values]
    listing = _Listing(Loop(program, arguments, (), roots[0], 0, frozenset(), frozenset()), names)
    lines = [*filter(None, map(listing._line, program.needed(roots)))]
    for place, values in enumerate(results):
        for element, value in enumerate(values):
            name = f"gradient_{place - 1}[{element}]" if place else "loss"
            lines.append(f"{name} += {listing._of(value)}")
    return lines


def _names(stepper: Any, inputs: Inputs) -> list[list[str]]:
    """Names of the elements of all inputs of a step."""
    carry, surroundings = unflattened(inputs.tensors, inputs.spec)
    state, evaluation = carry.state, carry.evaluation
    named_state = replace(
        state,
        variables={name: _leaves(name, leaves) for name, leaves in state.variables.items()},
        scalars={name: name for name in state.scalars},
        time="t",
        step="step",
    )
    solution = None if evaluation.damped is None else _leaves("damped", evaluation.damped)
    gradient = _leaves("g", evaluation.gradient)
    named = replace(
        carry,
        state=named_state,
        evaluation=replace(evaluation, loss="loss", gradient=gradient, damped=solution),
        step_size="step_size",
        memory=tuple(f"memory_{place}" for place in range(len(carry.memory))),
        status="status",
        gradients="gradients",
        rejected="rejected",
        products="products",
        losses="losses",
    )
    around: dict[str, Any] = {
        part: {name: name if part == "hyperparameters" else f"{part}_{name}" for name in held}
        for part, held in surroundings.items()
        if isinstance(held, dict)
    }
    ends = {"end_time": stepper.end_time, "last_step": stepper.last_step}
    around["ends"] = [name for name, tensor in ends.items() if tensor is not None]
    if "noise" in surroundings:
        around["noise"] = ["seed", "trajectory"]
    if "order" in surroundings:
        names = ["rows", "first_drawn", "rows_per_step", "row_stride", "trajectory_stride"]
        around["order"] = names[: len(surroundings["order"])]
    names, _ = flattened((named, {part: around[part] for part in surroundings}))
    found = []
    for place, name in enumerate(names):
        lane = inputs.lanes[place]
        shape = inputs.rest(place) if lane else tuple(inputs.tensors[place].shape)
        found.append([f"{name}_{e}" for e in range(math.prod(shape))] if shape else [name])
    return found


def _leaves(name: str, leaves: tuple) -> tuple[str, ...]:
    """Leaves of one element each are coordinates; a single leaf has its elements numbered."""
    return (name,) if len(leaves) == 1 else tuple(f"{name}_{i}" for i in range(len(leaves)))
