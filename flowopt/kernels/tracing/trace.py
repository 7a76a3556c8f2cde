"""From a torch function to a scalar program: `make_fx`, then one rule per node of its graph."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from flowopt.kernels.program import F64, I64, MOST_OPERATIONS, Program, UnfitError
from flowopt.kernels.scalar import BITS, Scalar, scalar_dtype
from flowopt.kernels.tracing import wide
from flowopt.kernels.tracing.arrays import (
    COPIES,
    MATRIX_PRODUCTS,
    REDUCTIONS,
    VIEWS,
    Array,
    copied,
    counted,
    filled,
    viewed,
)
from flowopt.kernels.tracing.guard import poisoned
from flowopt.kernels.tracing.indexing import Indexing
from flowopt.kernels.tracing.noise import random_array, random_at
from flowopt.kernels.tracing.operations import DECOMPOSED, ELEMENTWISE, Row
from flowopt.kernels.tracing.traced import Argument, Rows, Traced

ASKS_FOR_VALUE = (
    "the loss or the step asks for the value of a tensor: a branch on data, .item(), .tolist() or "
    "a shape that depends on data"
)
WRAPPING = {"add", "sub", "mul", "neg", "rsub", "square", "pow"}


def trace(
    function: Callable,
    inputs: Sequence[Tensor],
    lanes: Sequence[bool],
    rows: Rows | None = None,
    element: bool = False,
) -> Traced:
    """Traces a function of tensors that returns a flat list of tensors.

    Args:
        function: Of as many tensors as `inputs`.
        inputs: Samples with one trajectory each: (1, …) where there is one value per trajectory.
        lanes: Which of them have one value per trajectory.
        rows: What the function's `over_rows` computes. With it, one value stands for all elements
            of an input that has several per trajectory.
        element: Whether a lane is one of many elements: what sums over (1,) sums over all of them.

    Raises:
        UnfitError: The function can not be written as a scalar program.
    """
    table = get_decompositions(
        [getattr(torch.ops.aten, name) for name in DECOMPOSED if hasattr(torch.ops.aten, name)]
    )
    try:
        with torch.no_grad():
            module = make_fx(
                function,
                # Its type says less than what torch takes, and gives.
                decomposition_table=table,  # pyright: ignore[reportArgumentType]
                tracing_mode="fake",
                _allow_non_fake_inputs=True,
            )(*inputs)
    except (
        DataDependentOutputException,
        DynamicOutputShapeException,
        GuardOnDataDependentSymNode,
    ) as error:
        raise UnfitError(ASKS_FOR_VALUE) from error
    except UnfitError:
        raise
    # The user's function may raise anything when it is given tensors without values.
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise UnfitError(f"it could not be traced: {type(error).__name__}: {first}") from error
    arguments = [
        Argument(lane, t.dtype, tuple(t.shape), rows is not None and lane and t.numel() > 1)
        for lane, t in zip(lanes, inputs, strict=True)
    ]
    return _Lowering(module, arguments, rows, element).run()


class _Lowering:
    """Follows a graph node by node with arrays of scalars for its tensors."""

    def __init__(
        self,
        module: torch.fx.GraphModule,
        arguments: list[Argument],
        rows: Rows | None,
        element: bool,
    ):
        self.module = module
        self.rows, self.element = rows, element
        self.program = Program()
        self.arguments = arguments
        self.inputs = len(arguments)
        self.captured: dict[int, Tensor] = {}
        self.slots: dict[int, Array] = {}
        self.indexing = Indexing(self.program, self.arguments, self.captured, self.inputs)
        self.values: dict[torch.fx.Node, Any] = {}

    def run(self) -> Traced:
        place = 0
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                argument = self.arguments[place]
                self.values[node] = self._argument(place, argument)
                place += 1
            elif node.op == "get_attr":
                self.values[node] = self._capture(getattr(self.module, node.target))
            elif node.op == "call_function":
                self.values[node] = self._called(node)
            elif node.op == "output":
                results = [self.values[out] for out in node.args[0]]
        # An argument handed back as it came is not taken apart.
        outputs = tuple(
            None if array.slot == place else self._values(place, array)
            for place, array in enumerate(results)
        )
        if self.program.value(self.indexing.all_inside()) is not True:
            raise UnfitError(
                "a stop condition, or what else is no loss, looks up a table at computed places"
            )
        used = self.program.needed([i for output in outputs for i in output or ()])
        operations = sum(self.program.nodes[i].op not in ("constant", "input") for i in used)
        if operations > MOST_OPERATIONS:
            raise UnfitError(
                f"one step is {operations} operations on single numbers, more than "
                f"{MOST_OPERATIONS}"
            )
        return Traced(
            self.program,
            tuple(self.arguments),
            outputs,
            tuple(self.captured.values()),
            self.indexing.baked,
            self.rows,
        )

    def _values(self, place: int, array: Array) -> tuple[int, ...]:
        """Values of a result; one for all elements if its argument is wide."""
        if place < self.inputs and self.arguments[place].wide:
            return (wide.single(array),)
        return tuple(int(i) for i in array.ids.ravel())

    def _argument(self, slot: int, argument: Argument) -> Array:
        dtype, shape = argument.dtype, argument.shape
        if argument.wide:
            return wide.WideArray(self.program, None, dtype, slot=slot, shape=shape)
        return Array.argument(self.program, slot, dtype, shape, shared=not argument.lane)

    def _capture(self, tensor: Tensor) -> Array:
        key = id(tensor)
        if key not in self.slots:
            if tensor.layout != torch.strided or tensor.device.type != "cpu":
                raise UnfitError(
                    f"it closes over a tensor that is {tensor.layout}, {tensor.device}"
                )
            scalar_dtype(tensor.dtype)
            slot = len(self.arguments)
            shape = tuple(tensor.shape)
            self.arguments.append(Argument(False, tensor.dtype, shape))
            self.captured[key] = tensor
            self.slots[key] = self._argument(slot, self.arguments[slot])
        return self.slots[key]

    def _slot(self, tensor: Tensor) -> int:
        slot = self._capture(tensor).slot
        assert slot is not None
        return slot

    def _called(self, node: torch.fx.Node) -> Any:
        try:
            return self._call(node)
        except UnfitError:
            raise
        # Rules are written for the arguments that torch usually gives; for others the step does
        # not fit, which costs speed and nothing else.
        except Exception as error:
            raise UnfitError(
                f"operation {node.target} with these arguments has no scalar form "
                f"({type(error).__name__}: {error})"
            ) from error

    def _call(self, node: torch.fx.Node) -> Any:
        if node.target is operator.getitem:
            source, place = node.args
            assert isinstance(source, torch.fx.Node)
            return self.values[source][place]
        if not isinstance(node.target, torch._ops.OpOverload):
            raise UnfitError(f"operation {node.target} has no scalar form")
        name = node.target.name().removeprefix("aten::")
        name = name if "." in name else f"{name}.default"
        arguments = _bound(node)
        before, values = arguments, torch.fx.map_arg(arguments, self.values.__getitem__)
        base, _, overload = name.partition(".")
        if base.endswith("_") and not base.endswith("__"):
            return self._in_place(name, base[:-1], overload, before, values)
        result = self._pure(name, before, values, node.meta.get("val"))
        return _checked(name, result, node.meta.get("val"))

    def _in_place(self, name: str, base: str, overload: str, nodes: list, values: list) -> Array:
        target = values[0]
        if base in ("copy", "fill", "zero"):
            source = values[1] if len(values) > 1 else 0
            if not isinstance(source, Array):
                source = filled(self.program, (), source, target.dtype)
            result = source.converted(target.dtype)
        else:
            out = nodes[0].meta["val"]
            tensors = [n.meta["val"] for n in nodes if isinstance(n, torch.fx.Node)]
            common = tensors[0].dtype
            if len(tensors) == 2:
                common = torch.result_type(*tensors)
            out = out.to(common) if common != out.dtype else out
            result = self._pure(f"{base}.{overload}", nodes, values, out)
            result = result.converted(target.dtype)
        if isinstance(target, wide.WideArray):
            return target.assigned(result)
        try:
            target.ids[...] = result.ids
        except ValueError as error:
            raise UnfitError(
                f"{name} changes a tensor that the loss or the step closes over or is given"
            ) from error
        return target

    def _pure(self, name: str, nodes: list, values: list, out: Any) -> Any:
        if name == "flowopt::over_rows.default":
            leaves, number, _ = values
            return self._over_rows(leaves, number, out)
        if wide.concerns(name, values, self.rows is not None):
            if name in ELEMENTWISE:
                result = wide.elementwise(
                    ELEMENTWISE[name], self._common(name, nodes, out), values, out
                )
                return self._wrapped(name.partition(".")[0], result)
            return wide.moved(name, values, out)
        if name in ELEMENTWISE:
            return self._elementwise(name, ELEMENTWISE[name], nodes, values, out)
        if name in VIEWS:
            return _aliased(name, viewed(VIEWS[name], *values), values[0])
        if name in ("clone.default", "_to_copy.default"):
            table = copied(values[0], out.dtype)
            if table is not None:
                return table
        if name in COPIES:
            return COPIES[name](*values)
        if self.element and name.partition(".")[0] == "sum" and values[0].shape == (1,):
            summand = self.program.convert(int(values[0].ids[0]), F64)
            found = self.program.emit("total", F64, summand)
            found = self.program.convert(found, scalar_dtype(out.dtype))
            return Array(self.program, np.full(out.shape, found), out.dtype)
        if name in REDUCTIONS:
            kind = (out[0] if isinstance(out, tuple | list) else out).dtype
            return REDUCTIONS[name](values[0].converted(kind), *values[1:])
        if name in MATRIX_PRODUCTS:
            return MATRIX_PRODUCTS[name](*values)
        if name == "_to_copy.default":
            return self._wrapped("mul", values[0].converted(out.dtype))
        if name in self.indexing.rows:
            return self.indexing.rows[name](*values)
        if name == "flowopt::inside_tables.default":
            return tuple(poisoned(values[0], self.indexing.all_inside()))
        if name.removeprefix("flowopt::") in ("normal.default", "uniform.default"):
            return random_array(name.removeprefix("flowopt::").removesuffix(".default"), *values)
        if name in ("flowopt::normal_at.default", "flowopt::uniform_at.default"):
            return random_at(name.removeprefix("flowopt::").removesuffix("_at.default"), *values)
        return self._made(name, values, out)

    def _made(self, name: str, values: list, out: Tensor) -> Array:
        """Tensors of one number, and those that count."""
        base = name.partition(".")[0].removeprefix("new_").removesuffix("_like")
        numbers = {"zeros": 0, "ones": 1, "empty": 0, "empty_strided": 0}
        if base in numbers:
            return filled(self.program, out.shape, numbers[base], out.dtype)
        if base in ("full", "scalar_tensor"):
            value = values[{"scalar_tensor": 0}.get(base, 2 if name.startswith("new_") else 1)]
            if isinstance(value, int | float):
                return filled(self.program, out.shape, value, out.dtype)
        if base == "arange":
            plain = [value for value in values if isinstance(value, int | float)]
            start, step = (plain[0] if len(plain) > 1 else 0), (plain[2] if len(plain) > 2 else 1)
            return counted(self.program, start, step, out.shape[0], out.dtype)
        if name == "_local_scalar_dense.default":
            raise UnfitError(ASKS_FOR_VALUE)
        random = "draws random numbers" if "rand" in name or "bernoulli" in name else ""
        raise UnfitError(f"operation {name} {random or 'has no scalar form'}")

    def _elementwise(self, name: str, row: Row, nodes: list, values: list, out: Tensor) -> Array:
        arrays = [value for value in values if isinstance(value, Array)]
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        kind = self._common(name, nodes, out)
        columns = []
        for array in arrays:
            own = row.types == "own" or (row.types == "choice" and array.dtype == torch.bool)
            source = [s if own else s.to(kind) for s in array.scalars()]
            ids = np.array([s.index for s in source], dtype=np.int64).reshape(array.shape)
            columns.append(np.broadcast_to(ids, shape).ravel().tolist())
        results = np.empty(int(np.prod(shape)), dtype=np.int64)
        for place in range(len(results)):
            operands = (Scalar(self.program, column[place]) for column in columns)
            filled_in = [next(operands) if isinstance(v, Array) else v for v in values]
            results[place] = row.function(*filled_in).to(scalar_dtype(out.dtype)).index
        result = Array(self.program, results.reshape(shape), out.dtype)
        return self._wrapped(name.partition(".")[0], result)

    def _common(self, name: str, nodes: list, out: Tensor) -> str:
        """The type in which an elementwise operation is computed."""
        if ELEMENTWISE[name].types != "promoted":
            return scalar_dtype(out.dtype)
        metas = [n.meta["val"] if isinstance(n, torch.fx.Node) else n for n in nodes]
        return scalar_dtype(torch.result_type(metas[0], metas[1]))

    def _over_rows(self, leaves: list[Array], number: Array | None, out) -> tuple[Array, ...]:
        """Loss and gradient, summed over rows when the kernel runs."""
        assert self.rows is not None
        traced, tables = self.rows.traced, self.rows.tables
        slots = tuple(self._slot(tensor) for tensor in (*tables, *traced.captured))
        self.rows = replace(self.rows, slots=slots)
        places = dict(enumerate(slots[len(tables) :]))
        self.indexing.baked |= {places[i] - self.inputs: kept for i, kept in traced.baked.items()}
        emit = self.program.emit
        arguments = [wide.single(leaf) for leaf in leaves]
        if number is not None:
            arguments.append(wide.single(number))
        token = emit("rows", I64, *arguments)
        found = []
        for place, meta in enumerate(out):
            shape, size = tuple(meta.shape), meta.numel()
            part = emit("part", scalar_dtype(meta.dtype), token, data=place, size=size)
            kind = wide.WideArray if size > 1 else Array
            ids = np.full(shape, part, dtype=np.int64)
            found.append(kind(self.program, ids, meta.dtype, shape=shape))
        return tuple(found)

    def _wrapped(self, base: str, array: Array) -> Array:
        """Whole numbers brought back into the range of their type."""
        if array.dtype not in BITS or base not in WRAPPING:
            return array
        emit, bits = self.program.emit, BITS[array.dtype]
        if isinstance(array, wide.WideArray):
            return array.like(emit("wrap", "i64", array.index, data=bits))
        flat = [emit("wrap", "i64", int(index), data=bits) for index in array.ids.ravel()]
        return array.view(np.array(flat, dtype=np.int64).reshape(array.shape))


def _bound(node: torch.fx.Node) -> list:
    """Arguments of a node in the order of its schema; those that only say where are left out."""
    values = []
    assert isinstance(node.target, torch._ops.OpOverload)
    for place, argument in enumerate(node.target._schema.arguments):
        if argument.name in ("layout", "device", "pin_memory", "non_blocking", "generator"):
            continue
        if place < len(node.args) and not argument.kwarg_only:
            values.append(node.args[place])
        elif argument.name in node.kwargs:
            values.append(node.kwargs[argument.name])
        else:
            values.append(argument.default_value)
    return values


def _aliased(name: str, result: Any, source: Array) -> Any:
    """Checks that a view is one in numpy too, so that writing reaches every alias."""
    for array in result if isinstance(result, tuple) else (result,):
        ours, theirs = (a.ids if a.held is None else a.held.places for a in (array, source))
        if ours.size and not np.may_share_memory(ours, theirs):
            raise UnfitError(f"operation {name} on this layout has no scalar form")
    return result


def _checked(name: str, result: Any, out: Any) -> Any:
    """Our own invariant: shapes and types are those that torch gave."""
    pairs = zip(result, out, strict=True) if isinstance(result, tuple) else [(result, out)]
    for array, expected in pairs:
        assert array.shape == tuple(expected.shape), (name, array.shape, expected.shape)
        assert array.dtype == expected.dtype, (name, array.dtype, expected.dtype)
    return result
