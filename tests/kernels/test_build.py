"""What is built, how often, and what happens to a cache in trouble."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

import flowopt as fo
from flowopt.kernels import UnfitError, engine
from flowopt.kernels.native import build, cache, team
from flowopt.kernels.native.machine import this_machine
from flowopt.kernels.program import F32, F64, FUNCTIONS
from flowopt.kernels.step import Traces
from tests.kernels import losses
from tests.kernels.machinery import assert_equal, by_kernel, samples

# A run has a kernel that starts trajectories and one that steps them.
KERNELS = 2


@pytest.fixture
def builds(monkeypatch):
    """A list that grows by one with every compilation."""
    found = []
    # What hands pieces to threads is built once per process.
    team._team()
    compile_object = build.compile_object

    def counted(text, machine):
        found.append(text)
        return compile_object(text, machine)

    monkeypatch.setattr(build, "compile_object", counted)
    return found


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """No kernel in memory or on disk."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    build.load.cache_clear()
    yield tmp_path / "cache"
    build.load.cache_clear()


def _run(problem=None, count=20, step_size=0.05, seed=0, tolerance=1e-3, **settings):
    settings = {"friction": 1.0, "temperature": 0.1, **settings}
    start = torch.linspace(-1, 1, 2 * count, dtype=torch.float64).reshape(count, 2)
    return fo.integrate(
        fo.flows.langevin(**settings),
        fo.Splitting("BAOAB"),
        problem or losses.Scaled(torch.tensor(1.0, dtype=torch.float64)),
        start,
        step_size=step_size,
        steps=30,
        seed=seed,
        stop=fo.stop.gradient(tolerance),
        compile=True,
    )


CHANGES = {
    "hyperparameter": {"friction": 2.0},
    "temperature": {"temperature": 0.3},
    "step size": {"step_size": 0.1},
    "seed": {"seed": 7},
    "tolerance": {"tolerance": 0.2},
    "batch size": {"count": 57},
    "tensor in the loss": {"problem": losses.Scaled(torch.tensor(2.0, dtype=torch.float64))},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_new_value_builds_nothing_and_counts(name, builds, empty_cache):
    before = _run()
    assert len(builds) == KERNELS
    after = _run(**CHANGES[name])
    assert len(builds) == KERNELS
    if name != "batch size":
        assert not torch.equal(after.position, before.position)


HALF = torch.tensor(0.5, dtype=torch.float64)
DESCENT = fo.flows.gradient_flow()
QUADRATIC = fo.problems.quadratic([1.0, 4.0])


def _blocks(first, second):
    flows = {"a": fo.flows.heavy_ball(friction=first), "b": fo.flows.heavy_ball(friction=second)}
    return fo.PartitionedFlow(fo.Partition(QUADRATIC, {"a": 0, "b": 1}), flows)


@pytest.mark.parametrize(
    "made",
    [
        lambda a, b: (fo.flows.adam(momentum_rate=a, square_rate=b), "TMVA", fo.Constant(0.1)),
        lambda a, b: (_blocks(a, b), "OBA", fo.Constant(0.1)),
        lambda a, b: (DESCENT, "A", fo.LyapunovControl(dissipation=a, shrink=b)),
        lambda a, b: (fo.flows.heavy_ball(friction=a), "OBA", fo.Constant(b)),
    ],
    ids=["hyperparameters", "blocks", "control", "step size"],
)
def test_what_was_one_tensor_for_two_settings_may_later_be_two(made):
    start = torch.tensor([[1.0, 2.0], [0.3, -0.7]], dtype=torch.float64)
    for second in (HALF, torch.tensor(0.9, dtype=torch.float64)):
        flow, word, control = made(HALF, second)
        ours, theirs = (
            fo.integrate(
                *(flow, fo.Splitting(word), QUADRATIC, start),
                control=control,
                steps=7,
                compile=compile,
            ).position
            for compile in (True, False)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)


def test_the_same_objects_are_traced_once(monkeypatch):
    made = []
    monkeypatch.setattr(engine, "_traces", Traces())
    trace = sys.modules["flowopt.kernels.step"].trace
    monkeypatch.setattr(
        sys.modules["flowopt.kernels.step"], "trace", lambda *a: made.append(1) or trace(*a)
    )
    problem = losses.Scaled(2.0)
    for step_size in (0.05, 0.1, 0.2):
        _run(problem, step_size=step_size)
    assert len(made) == KERNELS


def test_object_code_is_found_again_on_disk(builds, empty_cache):
    first = _run()
    build.load.cache_clear()
    second = _run()
    assert len(builds) == KERNELS
    assert len(list(empty_cache.glob("*.o"))) == KERNELS
    assert_equal(second.position, first.position)


@pytest.mark.parametrize("fault", ["cut", "garbage", "empty", "flipped"])
def test_a_corrupt_file_is_built_again(fault, builds, empty_cache):
    first = _run()
    file = max(empty_cache.glob("*.o"), key=lambda found: found.stat().st_size)
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    file.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "garbage": b"not a kernel",
            "empty": b"",
            "flipped": bytes(flipped),
        }[fault]
    )
    build.load.cache_clear()
    assert_equal(_run().position, first.position)
    assert len(builds) == KERNELS + 1
    assert file.read_bytes() == content


def test_a_folder_that_can_not_be_written_is_done_without(builds, empty_cache, tmp_path):
    # A file where the folder should be; permissions do not hold back the superuser.
    empty_cache.write_text("in the way")
    _run()
    assert len(builds) == KERNELS
    assert empty_cache.read_text() == "in the way"


def test_an_interrupted_write_leaves_no_file(empty_cache, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    _run()
    assert list(empty_cache.glob("*")) == []


def test_two_threads_may_build_the_same_kernel(empty_cache):
    def write(number):
        return cache.write("same", bytes([number]) * 100_000)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(32)))
    content = cache.read("same")
    assert len(set(content)) == 1
    assert len(list(empty_cache.iterdir())) == 1


def test_code_of_another_processor_or_features_has_another_key():
    machine = this_machine()
    keys = {
        build.digest("text", m)
        for m in (machine, replace(machine, cpu="other"), replace(machine, features="+other"))
    }
    assert len(keys) == 3


def test_a_missing_function_is_refused_before_it_is_linked():
    text = "declare double @no_such_function(double)\ndefine i64 @run() { ret i64 0 }"
    with pytest.raises(UnfitError, match="no_such_function"):
        build.load(text, ("no_such_function",), this_machine())


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_without_a_vector_library_functions_are_called_lane_by_lane(name, dtype):
    bare = replace(this_machine(), functions=frozenset())
    kind = torch.float64 if dtype == F64 else torch.float32
    torch_name = {"pow": "pow", "erf": "erf"}.get(name, name)
    columns = [c.to(kind) for c in samples(["positive"] * FUNCTIONS[name])]

    def function(*values):
        return getattr(torch, torch_name)(*values)

    ours = by_kernel(function, *columns, machine=bare)
    digits = 1e-13 if dtype == F64 else 1e-5
    torch.testing.assert_close(ours, function(*columns), rtol=digits, atol=digits, equal_nan=True)


def _mixed(x, y):
    z = (x * y + 0.5 / (1 + x * x)).sqrt() - y
    return torch.where(z > 0, z * z, x - y * 3)


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("copies", [1, 2, 4])
def test_results_depend_on_neither_lanes_nor_vectors_per_block(width, copies):
    columns = samples(["real", "real"], count=123)
    machine = replace(this_machine(), width=width)
    assert_equal(by_kernel(_mixed, *columns, machine=machine, copies=copies), _mixed(*columns))


FORKED = """
import os, torch
import flowopt as fo
from tests.kernels.test_build import _run
torch.set_num_threads(2)
first = _run(count=500).position
child = os.fork()
if child == 0:
    same = torch.equal(_run(count=500).position, first)
    os._exit(0 if same else 3)
_, code = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(code))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


def test_another_process_builds_nothing(empty_cache):
    first = _run()
    script = (
        "import torch\n"
        "from flowopt.kernels.native import build\n"
        "def refuse(*_): raise SystemExit('built again')\n"
        "build.compile_object = refuse\n"
        "from tests.kernels.test_build import _run\n"
        f"assert _run().position.tolist() == {first.position.tolist()!r}\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
