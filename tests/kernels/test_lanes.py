"""The same program at one lane and at as many as a vector has, for everything in the registry."""

import re
from dataclasses import replace

import pytest
import torch

import flowopt as fo
from flowopt.core.curvature.solving import solving
from flowopt.core.noise import seeded_noise
from flowopt.core.oracle import as_oracle
from flowopt.kernels.batch import shared_places
from flowopt.kernels.device import ptx
from flowopt.kernels.inputs import inputs_of
from flowopt.kernels.loop import as_loop
from flowopt.kernels.native.build import load
from flowopt.kernels.native.launch import pointers
from flowopt.kernels.native.machine import this_machine
from flowopt.kernels.program import FUNCTIONS
from flowopt.kernels.step import Traces
from flowopt.registry import CONTROLS, PROBLEMS
from flowopt.stepper import Stepper
from flowopt.stop import tried_stop
from tests.kernels.machinery import assert_equal, columns_of, run_loop
from tests.reference.pairs import PAIRS, controlled_pairs, fitting

ALL = {name: build() for name, build in PROBLEMS.items()}
COUNT, STEPS_BEFORE = 37, 3
# Units in the last place of the largest value: what a vector library promises of a function.
ULP = 4


def _under_way(pair, problem, control, dtype):
    """A stepper, and trajectories after some steps."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(COUNT, problem.dim, generator=generator, dtype=torch.float64) - 0.5
    oracle = as_oracle(problem, dtype, start.device)
    position, batch, device = oracle.leaves(start.to(dtype)), (COUNT,), start.device
    flow = pair.flow.fitted(batch, device)
    evaluation = solving(oracle, flow.damping).evaluate(position, None)
    none = torch.zeros(batch, dtype=torch.int64)
    control = CONTROLS[control](pair.step_size)
    regular = pair.scheme.regular_start
    state = flow.initial_state(position, none, lambda _: evaluation, regular)
    stepper = Stepper(
        flow,
        pair.scheme,
        oracle,
        seeded_noise(0, batch, device),
        control,
        tried_stop(fo.stop.gradient(1e-3), state, lambda: evaluation),
        last_step=none + 1000,
    )
    carry = stepper.start(state, evaluation)
    # The table of a schedule ahead.
    first = stepper.control.refresh(state, carry.step_size, carry.memory, STEPS_BEFORE + 1)
    carry = replace(carry, step_size=first[0], memory=first[1])
    for _ in range(STEPS_BEFORE):
        carry = stepper.advance(carry)
    return stepper, carry


def _loop(stepper, carry):
    """The loop of a stepper, and its arguments."""
    inputs = inputs_of(stepper, carry)
    traced = Traces().get(stepper, inputs).step.traced
    loop = as_loop(traced, inputs.status, shared_places(inputs._replace(unknown=frozenset())))
    places = zip(inputs.tensors, inputs.lanes, strict=True)
    arguments = [columns_of(t) if lane else t.contiguous() for t, lane in places]
    return loop, [*arguments, *traced.captured]


def _cases():
    """Every pair and control, problems and types in turn; a third unless all are asked for."""
    found = []
    for place, (pair, control) in enumerate(controlled_pairs()):
        names, dtype = fitting(pair, ALL), (torch.float64, torch.float32)[place % 2]
        problem = names[place % len(names)]
        marks = () if place % 3 == 0 else (pytest.mark.full,)
        name = f"{pair} {problem} {control} {dtype}"
        found.append(pytest.param(pair, problem, control, dtype, marks=marks, id=name))
    return found


def _assert_within_units(ours, theirs, calls, dtype):
    """Each call may be off by some units of the largest value, in the type that it computes in.

    Step sizes in float64 follow slopes in float32 where a control looks at them.
    """
    largest = theirs.nan_to_num(0.0, 0.0, 0.0).abs().max().to(dtype)
    unit = calls * (torch.nextafter(largest, largest.new_tensor(torch.inf)) - largest)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=ULP * float(unit), equal_nan=True)


@pytest.mark.parametrize(("pair", "problem", "control", "dtype"), _cases())
def test_one_lane_computes_what_a_vector_does(pair, problem, control, dtype):
    stepper, carry = _under_way(pair, ALL[problem], control, dtype)
    loop, arguments = _loop(stepper, carry)
    machine = this_machine()
    alone = run_loop(loop, arguments, replace(machine, width=1))
    same = run_loop(loop, arguments, replace(machine, functions=frozenset()))
    library = run_loop(loop, arguments, machine)
    assert alone[0] == same[0] == library[0]
    body = loop.program.needed(carried.ending for carried in loop.carried)
    calls = sum(loop.program.nodes[i].op in FUNCTIONS for i in body)
    for slot, ours in alone[1].items():
        assert_equal(ours, same[1][slot])
        if ours.is_floating_point() and not _weighs(stepper):
            _assert_within_units(ours, library[1][slot], calls, dtype)


def _weighs(stepper):
    """Whether a step hangs on a difference that may be rounding, of one library or another.

    A control that rejects may take a trial at its threshold or not, and a balance of energy moves a
    slow momentum by the rounding of the loss over it.
    """
    return stepper.control.rejects or getattr(stepper.scheme, "solves", False)


# A group of threads on a GPU, one after another on the CPU.
THREADS = 8
IN_TURN = f"""
@group = global i32 0
@thread = global i32 0
define i32 @ctaid() {{
  %value = load i32, ptr @group
  ret i32 %value
}}
define i32 @tid() {{
  %value = load i32, ptr @thread
  ret i32 %value
}}
define i32 @ntid() {{ ret i32 {THREADS} }}
define i64 @run(ptr %pointers, ptr %sizes, i64 %first, i64 %last, i64 %trials, i64 %count) {{
  %running = alloca i64
  store i64 0, ptr %running
  %group.wide = sdiv i64 %first, {THREADS}
  %thread.wide = srem i64 %first, {THREADS}
  %group = trunc i64 %group.wide to i32
  %thread = trunc i64 %thread.wide to i32
  store i32 %group, ptr @group
  store i32 %thread, ptr @thread
  call void @{ptx.ENTRY}(ptr %pointers, ptr %sizes, i64 %trials, i64 %count, ptr %running)
  %left = load i64, ptr %running
  ret i64 %left
}}
"""


def _by_threads(loop, arguments):
    """What the threads of a GPU would do, in more groups than there are trajectories for."""
    source = ptx.print_device(loop)
    text = source.text.replace("@run(", "@block(").replace("ptx_kernel ", "").replace("__nv_", "")
    text = re.sub(r"declare .*@llvm.nvvm.*\n", "", text)
    text = re.sub(r"@llvm.nvvm.read.ptx.sreg.(\w+).x", r"@\1", text) + IN_TURN
    symbols = tuple(symbol.removeprefix("__nv_") for symbol in source.symbols)
    code = load(text, symbols, this_machine())
    results = {slot: torch.full_like(arguments[slot], 7) for slot in source.layout.carried}
    shared = {slot: arguments[slot][:1] for slot in source.layout.shared}
    addresses, sizes = pointers(source.layout, arguments, results, shared)
    threads = range(COUNT + 2 * THREADS)
    return sum(code.run(addresses, sizes, thread, 0, 1, COUNT) for thread in threads), results


@pytest.mark.parametrize("flow", ["langevin", "adam"])
def test_threads_of_a_gpu_share_the_trajectories_out(flow):
    pair = next(pair for pair in PAIRS if pair.name == flow)
    loop, arguments = _loop(*_under_way(pair, ALL["rosenbrock"], "constant", torch.float64))
    left, results = _by_threads(loop, arguments)
    left_alone, single = run_loop(loop, arguments, replace(this_machine(), width=1))
    assert left == left_alone == COUNT
    for slot, theirs in single.items():
        assert_equal(results[slot], theirs)
