"""Losses that look up tables at computed places: problems on a grid."""

import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import flowopt as fo
from flowopt.kernels import UnfitError
from flowopt.kernels.device import ptx
from flowopt.kernels.native import build
from tests.kernels import losses
from tests.kernels.machinery import assert_equal, by_kernel

ROWS, COLUMNS = 30, 40
FLOW = fo.flows.gradient_flow()


def _numbers(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


class Bilinear:
    """A landscape on a grid over (-2, 2)², interpolated; outside there is none."""

    dim = 2

    def __init__(self, table):
        self.table = table

    def loss(self, theta):
        rows, columns = self.table.shape
        x = (theta[..., 0] + 2) * ((rows - 1) / 4)
        y = (theta[..., 1] + 2) * ((columns - 1) / 4)
        i, j = x.floor().to(torch.int64), y.floor().to(torch.int64)
        u, v, table = x - i, y - j, self.table
        below = (1 - u) * table[i, j] + u * table[i + 1, j]
        above = (1 - u) * table[i, j + 1] + u * table[i + 1, j + 1]
        return (1 - v) * below + v * above


def _clamped(table):
    """Nearest grid point of a line, with a force that keeps it near the middle."""

    def loss(theta):
        place = (theta[..., 0] * 20 + 50).round().clamp(0, len(table) - 1).to(torch.int64)
        return 0.1 * table[place] * theta[..., 0] + (theta**2).sum(-1)

    return losses.Plain(loss)


def _start(count=200, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1.5).to(dtype)


def _run(problem, start=None, compile=True, step_size=2e-4, steps=50, **settings):
    start = _start() if start is None else start
    settings |= {"step_size": step_size, "steps": steps, "compile": compile}
    return fo.integrate(FLOW, fo.Euler(), problem, start, **settings)


def _assert_as_eager(problem, **settings):
    ours, theirs = (_run(problem, compile=native, **settings) for native in (True, False))
    assert ours.engine == "native kernel"
    assert_equal(ours.status, theirs.status)
    assert_equal(ours.position, theirs.position)
    assert_equal(ours.loss, theirs.loss)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_bilinear_landscape_has_every_bit_of_eager_torch(dtype):
    _assert_as_eager(Bilinear(_numbers(ROWS, COLUMNS, dtype=dtype)), start=_start(dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.int16, torch.bool])
def test_a_line_of_any_type_is_a_table(dtype):
    _assert_as_eager(_clamped((3 * _numbers(101)).to(dtype)), step_size=0.01)


LINE = _numbers(101)
PLANE = _numbers(9, 11)
WHOLE = torch.arange(101).flip(0)


def _line_places(x):
    return (x * 20 + 50).to(torch.int64).clamp(0, 100)


def _plane_places(x):
    places = (x * 2 + 4).to(torch.int64).clamp(0, 8)
    return places[:, :2], -places[:, 2:]


FORMS = {
    "index": lambda x: LINE[_line_places(x)],
    "negative index": lambda x: LINE[_line_places(x) - 101],
    "gather": lambda x: LINE.gather(0, _line_places(x)[0])[None],
    "gather on an expanded table": lambda x: LINE.expand(len(x), -1).gather(1, _line_places(x)),
    "take": lambda x: PLANE.take(_line_places(x).clamp(max=98)),
    "index_select": lambda x: PLANE.index_select(1, _plane_places(x)[0][0])[2:3],
    "embedding": lambda x: F.embedding(_line_places(x)[:, :1], LINE[:, None])[..., 0],
    "two indices": lambda x: PLANE[_plane_places(x)],
    "rows": lambda x: PLANE[_plane_places(x)[0]][..., 4],
    "columns": lambda x: PLANE[:, _plane_places(x)[0]][2],
    "a known and a computed index": lambda x: PLANE[torch.tensor([2, 5]), _plane_places(x)[0]],
    "flattened": lambda x: PLANE.flatten()[_line_places(x).clamp(max=98)],
    "transposed": lambda x: PLANE.T[_plane_places(x)[0], 3],
    "a slice with steps": lambda x: LINE[1::3][(x.abs() * 9).to(torch.int64).clamp(max=32)],
    "in another type": lambda x: LINE.to(torch.float32)[_line_places(x)].to(x),
    "a copy": lambda x: LINE.clone()[_line_places(x)],
    "a table of places in a table": lambda x: LINE[WHOLE[_line_places(x)]],
    "numbers computed": lambda x: x.repeat(1, 2).gather(1, (x > 0).to(torch.int64) + 3),
    "numbers computed, two indices": lambda x: (x[0, :, None] * x)[_two_places(x)][None],
}


def _two_places(x):
    return (x[0] > 0).to(torch.int64), (x[0] > 1).to(torch.int64) - 2


@pytest.mark.parametrize("name", FORMS)
def test_torch_looks_up_in_many_ways(name):
    rows = _numbers(19, 4)
    ours = by_kernel(FORMS[name], rows)
    assert_equal(ours, torch.cat([FORMS[name](row[None]) for row in rows]))


OUTSIDE = {
    "beyond the end": lambda x: LINE[(x * 1e3).to(torch.int64)],
    "far away": lambda x: LINE[(x * 1e300).to(torch.int64)],
    "gather": lambda x: LINE.gather(0, x[0].to(torch.int64))[None],
    "one of two": lambda x: PLANE[(9 * x).to(torch.int64), 3],
    "whole numbers": lambda x: x + (WHOLE[(x * 1e3).to(torch.int64)] > 3),
    "a choice": lambda x: x.gather(1, (x[:, :2] * 3).to(torch.int64)),
    "a sum": lambda x: torch.zeros_like(x).scatter_add(1, (x * 3).to(torch.int64), x),
    "hidden by a choice": lambda x: torch.where(x < 9, LINE[(x * 1e3).to(torch.int64)], x),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_place_outside_of_a_table_makes_a_loss_nan_where_eager_torch_raises(name):
    function, rows, raised = OUTSIDE[name], 0.1 * _numbers(40, 4), 0
    rows[0] = 0.0
    rows[20:] *= 20
    found = by_kernel(function, rows)
    for row, ours in zip(rows, found, strict=True):
        try:
            assert_equal(ours, function(row[None])[0])
        except (IndexError, RuntimeError):
            assert ours.isnan().all()
            raised += 1
    assert 0 < raised < len(rows)


def test_trajectories_that_leave_the_grid_diverge_and_the_others_go_on():
    problem, start = Bilinear(_numbers(ROWS, COLUMNS)), _start()
    # Eager torch tries a step of those that have ended too, up to the end of 64 trials.
    settings = {"step_size": 0.05, "steps": 64}
    solution = _run(problem, start, **settings)
    gone = solution.status == fo.Status.DIVERGED
    assert 10 < gone.sum() < 190
    # Negative places count from the end, here as in torch: only the upper edges are edges.
    assert (solution.position < 2).all()
    with pytest.raises(IndexError):
        _run(problem, start[gone], compile=False, **settings)
    stayed = _run(problem, start[~gone], compile=False, **settings)
    assert_equal(solution.position[~gone], stayed.position)


@pytest.mark.parametrize("how", ["in place", "replaced", "replaced where nobody starts"])
def test_a_changed_table_is_seen_and_builds_nothing(how, monkeypatch):
    problem = Bilinear(_numbers(ROWS, COLUMNS))
    start = torch.linspace(-1.6, -1.4, 20, dtype=torch.float64)[:, None].repeat(1, 2)
    _run(problem, start)
    monkeypatch.setattr(build, "compile_object", None)
    if how == "in place":
        problem.table.mul_(-1.5)
    else:
        problem.table = problem.table.clone()
        problem.table[5 if "nobody" in how else slice(None)] += 2.0
        start = torch.cat([start, torch.full((1, 2), -1.28, dtype=torch.float64), start])
    _assert_as_eager(problem, start=start)


def test_a_table_of_another_shape_is_traced_anew():
    problem = Bilinear(_numbers(ROWS, COLUMNS))
    _run(problem)
    problem.table = _numbers(50, 60)
    _assert_as_eager(problem)


def test_a_place_that_is_clamped_is_not_checked_again():
    listings = [
        str(fo.describe_kernel(FLOW, fo.Euler(), problem, _start(2), step_size=0.1))
        for problem in (_clamped(LINE), Bilinear(PLANE))
    ]
    assert ["nan if" in listing or "else nan" in listing for listing in listings] == [False, True]


CLAMPS = {
    "inside": lambda x: x.clamp(0, 99),
    "one too far": lambda x: x.clamp(0, 101),
    "one too far, added": lambda x: x.clamp(0, 100) + 1,
    "from below only": lambda x: x.clamp(min=0),
    "from above only": lambda x: x.clamp(max=100),
    "one too low": lambda x: x.clamp(-102, 50),
}


@pytest.mark.parametrize("name", CLAMPS)
@pytest.mark.parametrize("whole", [True, False])
def test_only_what_a_clamp_excludes_goes_unchecked(name, whole):
    def places(x):
        x = x * 100
        return CLAMPS[name](x.to(torch.int64)) if whole else CLAMPS[name](x).to(torch.int64)

    rows = torch.cat([torch.zeros(1, 4, dtype=torch.float64), _numbers(60, 4)])
    ours, wanted = by_kernel(lambda x: LINE[places(x)], rows), places(rows)
    exists = ((wanted >= -101) & (wanted < 101)).all(-1)
    assert_equal(ours[exists], LINE[wanted[exists]])
    assert ours[~exists].isnan().all()
    assert exists.all() == (name == "inside")


@pytest.mark.parametrize("shape", [(2000, 1000), (3, 2)])
def test_size_does_not_matter(shape):
    problem, start = Bilinear(_numbers(*shape)), _start(20)
    text = str(fo.describe_kernel(FLOW, fo.Euler(), problem, start, step_size=0.1))
    assert text.count(" = data_0[") == 4
    _assert_as_eager(problem, start=start, step_size=1e-7)


def test_a_strided_table_is_kept_while_a_kernel_reads_it():
    wide = _numbers(2000, 3000)
    _assert_as_eager(Bilinear(wide[:, ::2].T), start=_start(20), step_size=1e-7)


def test_a_stop_condition_at_computed_places_is_refused_in_words():
    def low(state, evaluation):
        return LINE[evaluation.loss.fmod(1.0).to(torch.int64)] > 9

    with pytest.raises(UnfitError, match="looks up a table"):
        _run(losses.Plain(losses.neuron), stop=low)


class Tabulated(nn.Module):
    """An activation that is a table with linear interpolation."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.linspace(-2, 2, 65, dtype=torch.float64).tanh())

    def forward(self, x):
        place = ((x + 2) * 16).clamp(0, 63.5)
        number = place.floor().to(torch.int64)
        part = place - number
        return (1 - part) * self.table[number] + part * self.table[number + 1]


def test_a_row_of_data_looks_up_a_table(monkeypatch):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(2, 5).double(), Tabulated(), nn.Linear(5, 1).double())
    inputs = _numbers(70, 2)
    problem = fo.problems.network(module, F.mse_loss, (inputs, inputs[:, :1].sin()))
    printed, load = [], sys.modules["flowopt.kernels.step"].load
    monkeypatch.setattr(
        sys.modules["flowopt.kernels.step"],
        "load",
        lambda text, *rest: printed.append(text) or load(text, *rest),
    )
    ours, theirs = (
        fo.integrate(
            FLOW, fo.Euler(), problem, problem.start(9), step_size=0.1, steps=50, compile=native
        )
        for native in (True, False)
    )
    assert "@rows(" in printed[0]
    for name, weights in theirs.position.items():
        torch.testing.assert_close(ours.position[name], weights, rtol=1e-12, atol=1e-13)


def test_code_for_gpus_looks_up_tables_too(tmp_path):
    problem = Bilinear(_numbers(ROWS, COLUMNS))
    code = fo.describe_kernel(FLOW, fo.Euler(), problem, _start(2), step_size=0.1).ptx
    assert ".extern" not in code
    assembler = shutil.which("ptxas")
    if assembler:
        (tmp_path / "kernel.ptx").write_text(code)
        command = [assembler, "-c", "--gpu-name", ptx.GPU.cpu, "kernel.ptx", "-o", "kernel"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
