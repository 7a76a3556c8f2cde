"""Code for GPUs, made without one, of everything in the registry."""

import re
import shutil
import subprocess

import pytest
import torch

import flowopt as fo
from flowopt.kernels import UnfitError
from flowopt.kernels.device import ptx
from flowopt.kernels.device.libdevice import TOOLKITS, find_libdevice
from flowopt.kernels.program import FUNCTIONS, MACHINE_OPS
from flowopt.registry import CONTROLS, PROBLEMS
from tests.kernels.machinery import loop_of
from tests.reference.pairs import controlled_pairs, fitting

ALL = {name: build() for name, build in PROBLEMS.items()}
DTYPES = (torch.float64, torch.float32)
LIBDEVICE = {f"__nv_{name}{letter}" for name in FUNCTIONS for letter in ("", "f")}
ASSEMBLER = shutil.which("ptxas")
needs_assembler = pytest.mark.skipif(ASSEMBLER is None, reason="CUDA's ptxas is not installed")
needs_libdevice = pytest.mark.skipif(
    find_libdevice() is None, reason="neither torch's CUDA wheels nor a CUDA toolkit is installed"
)


def _cases():
    """Every pair and control once, types and problems in turn; the other type by --full."""
    found = []
    for place, (pair, control) in enumerate(controlled_pairs()):
        names = fitting(pair, ALL)
        problem = names[place % len(names)]
        for number, dtype in enumerate(DTYPES):
            marks = () if number == place % 2 else (pytest.mark.full,)
            name = f"{pair} {problem} {control} {dtype}"
            found.append(pytest.param((pair, problem, control, dtype), marks=marks, id=name))
    return found


def _described(flow, scheme, problem=ALL["rosenbrock"], dtype=torch.float64, **settings):
    start = torch.tensor([[-1.5, 1.0], [0.0, 0.5]], dtype=dtype)[:, : problem.dim]
    return fo.describe_kernel(flow, scheme, problem, start, **settings)


@pytest.fixture(scope="module", params=_cases())
def code(request):
    """PTX of one combination."""
    pair, problem, control, dtype = request.param
    settings = {"control": CONTROLS[control](pair.step_size), "stop": fo.stop.gradient(1e-3)}
    return _described(pair.flow, pair.scheme, ALL[problem], dtype, **settings).ptx


def _external(text):
    """Functions that are left open."""
    return set(re.findall(r"^\.extern \.func[^\n]*?([\w$]+)$", text, re.MULTILINE))


def _assert_assembles(text, folder):
    file = folder / "kernel.ptx"
    file.write_text(text)
    command = [ASSEMBLER, "-c", "--gpu-name", ptx.GPU.cpu, str(file), "-o", str(folder / "kernel")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_functions_of_libdevice_are_left_open(code):
    assert f".visible .entry {ptx.ENTRY}(" in code
    assert _external(code) <= LIBDEVICE
    assert code.count(".extern") == len(_external(code))


def test_every_operation_is_rounded_by_itself_and_correctly(code):
    operations = re.findall(r"\b(?:add|sub|mul|mad|fma|div|rcp|sqrt)\.\S*f(?:32|64)\b", code)
    assert operations
    assert all(re.fullmatch(r"(?:add|sub|mul|div|rcp|sqrt)\.rn\.f\d\d", o) for o in operations)


@needs_assembler
def test_the_assembler_of_cuda_takes_it(code, tmp_path):
    _assert_assembles(code, tmp_path)


def _all_functions(x, y):
    """Every function of the scalar program, each of its own result."""
    return torch.stack([getattr(torch, name)(*(x, y)[:n]) for name, n in FUNCTIONS.items()], dim=-1)


@pytest.mark.parametrize(("dtype", "letter"), [(torch.float64, ""), (torch.float32, "f")], ids=str)
def test_every_function_has_its_name_in_libdevice(dtype, letter):
    loop = loop_of(_all_functions, *torch.ones(2, 1, dtype=dtype))
    text = ptx.assemble(ptx.print_device(loop).text)
    assert _external(text) == {f"__nv_{name}{letter}" for name in FUNCTIONS}


def _without_functions(x, whole):
    """What the machine itself computes."""
    rounded = x.floor() + x.ceil() * x.trunc() - x.round().abs() / x.sqrt()
    narrow = (whole.to(torch.int8) * 3).to(torch.int64) ^ (x * 1e3).to(torch.int64)
    bits = whole | (narrow & 7) - whole.abs()
    chosen = torch.where((x < 0) | ~(whole <= 3) & (x != 1), rounded, -x)
    return chosen + bits + (whole == 2)


@needs_assembler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operations_without_a_function_assemble(dtype, tmp_path):
    loop = loop_of(_without_functions, torch.ones(1, dtype=dtype), torch.ones(1, dtype=torch.int64))
    operations = {node.op for node in loop.program.nodes}
    # Only noise shifts, and the registry has noise.
    assert operations >= set(MACHINE_OPS) - {"shl", "shr"}
    text = ptx.assemble(ptx.print_device(loop).text)
    assert not _external(text) - LIBDEVICE
    _assert_assembles(text, tmp_path)


@needs_libdevice
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_with_libdevice_nothing_is_left_open(dtype, tmp_path):
    loop = loop_of(_all_functions, *torch.ones(2, 1, dtype=dtype))
    text = ptx.assemble(ptx.print_device(loop).text, find_libdevice().read_bytes())
    assert not re.findall(r"\.extern|__nvvm_reflect|__nv_", text)
    if ASSEMBLER:
        _assert_assembles(text, tmp_path)


def test_libdevice_is_found_in_a_toolkit_that_is_named(tmp_path, monkeypatch):
    for name in TOOLKITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    file = tmp_path / "toolkit" / "nvvm" / "libdevice" / "libdevice.10.bc"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert find_libdevice() == file


def test_libdevice_is_found_next_to_torch_first(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    file = tmp_path / "nvidia" / "cuda_nvcc" / "nvvm" / "libdevice" / "libdevice.10.bc"
    file.parent.mkdir(parents=True)
    file.touch()
    assert find_libdevice() == file


def test_a_build_of_llvm_without_gpus_is_a_reason(monkeypatch):
    def none(triple):
        raise RuntimeError(f"no target for {triple}")

    monkeypatch.setattr(ptx.llvm.Target, "from_triple", none)
    ptx.gpu_target.cache_clear()
    description = _described(fo.flows.gradient_flow(), fo.Euler(), step_size=0.1)
    with pytest.raises(UnfitError, match="no target for GPUs"):
        _ = description.ptx
