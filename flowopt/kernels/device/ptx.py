"""PTX of the trajectory template: every thread of a GPU takes one trajectory through all steps.

    trajectories(ptr pointers, ptr sizes, i64 trials, i64 count, ptr running)

is the template at one lane: a thread steps the block that has its own number, and adds to
`running` whether its trajectory still runs; threads beyond the last trajectory do nothing.
Pointers and sizes are those of `native.trajectories`, in memory that the GPU reads.
"""

from functools import lru_cache

import llvmlite.binding as llvm

from flowopt.kernels.loop import Loop
from flowopt.kernels.native.build import MOST_LINES_OPTIMISED, OPTIMISATION, optimise
from flowopt.kernels.native.machine import Machine
from flowopt.kernels.native.trajectories import Source, print_trajectories
from flowopt.kernels.program import UnfitError

# The oldest processor that the assembler of CUDA 13 knows; drivers translate it for newer ones.
GPU = Machine(
    triple="nvptx64-nvidia-cuda",
    cpu="sm_75",
    features="",
    width=1,
    functions=frozenset(),
    prefix="__nv_",
)
ENTRY = "trajectories"
THREAD = f"""
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()

define ptx_kernel void @{ENTRY}(
    ptr %pointers, ptr %sizes, i64 %trials, i64 %count, ptr %running) {{
  %group = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %threads = call i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
  %thread = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %group.wide = zext i32 %group to i64
  %threads.wide = zext i32 %threads to i64
  %thread.wide = zext i32 %thread to i64
  %before = mul nuw nsw i64 %group.wide, %threads.wide
  %first = add nuw nsw i64 %before, %thread.wide
  %last = add nuw nsw i64 %first, 1
  %left = call i64 @run(ptr %pointers, ptr %sizes, i64 %first, i64 %last, i64 %trials, i64 %count)
  %old = atomicrmw add ptr %running, i64 %left monotonic
  ret void
}}
"""


@lru_cache(maxsize=1)
def gpu_target() -> llvm.TargetMachine:
    """LLVM's target for GPUs; it contracts no product and sum to one rounding unless told to.

    Raises:
        UnfitError: This build of llvmlite has none.
    """
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(GPU.triple)
    except RuntimeError as error:
        raise UnfitError(f"this llvmlite has no target for GPUs: {error}") from error
    return target.create_target_machine(cpu=GPU.cpu, features=GPU.features, opt=OPTIMISATION)


def print_device(loop: Loop) -> Source:
    """LLVM IR of the kernel of a loop for a GPU, whose functions are libdevice's.

    Raises:
        UnfitError: It needs memory of its own for every thread.
    """
    source = print_trajectories(loop, GPU, copies=1)
    if source.scratch:
        raise UnfitError("a loop over rows of data has no kernel for GPUs")
    return source._replace(text=source.text + THREAD)


def assemble(text: str, libdevice: bytes | None = None) -> str:
    """PTX of LLVM IR.

    Args:
        text: What `print_device` printed.
        libdevice: LLVM bitcode of the functions that it calls; without it they stay external.

    Raises:
        UnfitError: This build of llvmlite has no target for GPUs.
    """
    target = gpu_target()
    # Before the rest: how loads are aligned is decided while the text is read.
    layout = f'target triple = "{GPU.triple}"\ntarget datalayout = "{target.target_data}"\n'
    module = llvm.parse_assembly(layout + text)
    if libdevice is not None:
        _link(module, libdevice)
    for function in module.functions:
        if not function.is_declaration and function.name != ENTRY:
            function.linkage = llvm.Linkage.internal
    module.get_function("run").add_function_attribute("alwaysinline")
    module.verify()
    if text.count("\n") <= MOST_LINES_OPTIMISED:
        optimise(module, target)
    return target.emit_assembly(module)


def _link(module: llvm.ModuleRef, libdevice: bytes) -> None:
    library = llvm.parse_bitcode(libdevice)
    library.triple, library.data_layout = module.triple, module.data_layout
    module.link_in(library)
