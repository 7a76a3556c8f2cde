"""Machine code by LLVM, from the cache where it was made before."""

import ctypes
import hashlib
from _ctypes import CFuncPtr
from functools import lru_cache
from typing import NamedTuple

import llvmlite.binding as llvm

from flowopt.kernels.native import cache
from flowopt.kernels.native.machine import Machine, missing
from flowopt.kernels.program import UnfitError

OPTIMISATION = 2
# Beyond this many lines of IR the optimiser's passes cost more than they gain.
MOST_LINES_OPTIMISED = 40_000


class Code(NamedTuple):
    """A loaded kernel.

    Attributes:
        run: The function of `trajectories` or `updates`.
        built: Whether it was compiled now, not found in the cache.
        owner: Keeps the code in memory.
    """

    run: CFuncPtr
    built: bool
    owner: object


def digest(text: str, machine: Machine) -> str:
    """Key of object code: what it is made of, for which machine, by which LLVM."""
    version = ".".join(map(str, llvm.llvm_version_info))
    parts = (text, machine.triple, machine.cpu, machine.features, version, str(OPTIMISATION))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@lru_cache(maxsize=256)
def load(text: str, symbols: tuple[str, ...], machine: Machine) -> Code:
    """A kernel ready to run.

    Args:
        text: LLVM IR with a function `run`.
        symbols: External functions it calls.
        machine: For which it is compiled.

    Raises:
        UnfitError: The process has no function of such a name.
    """
    engine, built = link(text, symbols, machine)
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4
    )
    return Code(prototype(engine.get_function_address("run")), built, engine)


def link(
    text: str, symbols: tuple[str, ...], machine: Machine
) -> tuple[llvm.ExecutionEngine, bool]:
    """Machine code in memory, and whether it was compiled now.

    Args:
        text: LLVM IR.
        symbols: External functions it calls.
        machine: For which it is compiled.

    Raises:
        UnfitError: The process has no function of such a name.
    """
    absent = missing(symbols)
    if absent:
        raise UnfitError(f"this system has no function {absent[0]!r}")
    key = digest(text, machine)
    code = cache.read(key)
    built = code is None
    if code is None:
        try:
            code = compile_object(text, machine)
        except RuntimeError as error:
            raise UnfitError(f"LLVM refused the kernel: {error}") from error
        cache.write(key, code)
    engine = llvm.create_mcjit_compiler(_module("", machine), _target(machine))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, built


def compile_object(text: str, machine: Machine) -> bytes:
    """Object code of LLVM IR."""
    module = _module(text, machine)
    module.verify()
    target = _target(machine)
    if text.count("\n") <= MOST_LINES_OPTIMISED:
        optimise(module, target)
    return target.emit_object(module)


def optimise(module: llvm.ModuleRef, target: llvm.TargetMachine) -> None:
    """Runs LLVM's passes; vectors are as printed."""
    options = llvm.create_pipeline_tuning_options(speed_level=OPTIMISATION)
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)


def _module(text: str, machine: Machine) -> llvm.ModuleRef:
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    return module


def _target(machine: Machine) -> llvm.TargetMachine:
    return llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu,
        features=machine.features,
        opt=OPTIMISATION,
        reloc="pic",
        codemodel="jitdefault",
        jit=True,
    )
