"""Losses that no kernel can be made for run in eager torch, with its results and the reason."""

import importlib

import pytest
import torch

import flowopt as fo
from flowopt.kernels import UnfitError
from flowopt.registry import PROBLEMS
from tests.kernels import losses
from tests.kernels.machinery import assert_equal
from tests.reference.solutions import slow_flow

# Enough steps of trajectories for compile="auto" to try a kernel.
STEPS, COUNT = 300, 40_000


def _start(count=64):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1


def _run(problem, start=None, steps=20, compile=True, **arguments):
    return fo.integrate(
        fo.flows.gradient_flow(),
        fo.Euler(),
        problem,
        _start() if start is None else start,
        step_size=0.05,
        steps=steps,
        compile=compile,
        **arguments,
    )


REFUSED = {
    "branch": (lambda: losses.Plain(losses.branching), "value of a tensor"),
    "list": (lambda: losses.Plain(losses.listed), "value of a tensor"),
    "random": (lambda: losses.Plain(losses.random), "random numbers"),
    "complex": (lambda: losses.Plain(losses.transformed), "no scalar form"),
    "counter": (losses.Counting, "differs from eager torch"),
    "counter in a tensor": (losses.CountingInTensor, "closes over|differs from eager"),
    "train mode": (losses.InTrainMode, "closes over|no scalar form|traced"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_loss_is_refused_in_words(name):
    build, words = REFUSED[name]
    with pytest.raises(UnfitError, match=words):
        _run(build())


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_loss_runs_in_eager_torch_by_itself(name, monkeypatch):
    # The package's name `integrate` is the function.
    monkeypatch.setattr(importlib.import_module("flowopt.integrate"), "WORTH_A_KERNEL", 0)
    build, _ = REFUSED[name]
    solution = _run(build(), compile="auto")
    assert solution.engine.startswith("eager torch: ")
    assert len(solution.engine) > len("eager torch: ") + 10
    if name not in ("random", "counter", "counter in a tensor"):
        assert_equal(solution.position, _run(build(), compile=False).position)


def test_a_loss_that_couples_trajectories_is_found_out():
    # One trajectory at a time is the package's reading of such a loss; either way no kernel may
    # give another number than eager torch.
    problem = losses.Plain(losses.coupled)
    eager = _run(problem, compile=False)
    try:
        solution = _run(problem)
    except UnfitError:
        return
    torch.testing.assert_close(solution.position, eager.position, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", [losses.sliced_in_place, losses.partly_undefined])
def test_odd_losses_that_fit_agree_with_eager_torch(loss):
    ours, theirs = (_run(losses.Plain(loss), compile=c) for c in (True, False))
    assert_equal(ours.status, theirs.status)
    torch.testing.assert_close(
        ours.position, theirs.position, rtol=1e-13, atol=1e-14, equal_nan=True
    )
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-13, atol=1e-14, equal_nan=True)


def _writing_to_a_copy(theta):
    theta = theta.clone()
    theta.mul_(2.0)
    return losses.neuron(theta)


def _writing_to_all(theta):
    theta.mul_(0.5)
    return losses.neuron(theta)


def _writing_to_a_slice(theta):
    theta[..., 0] += 0.5
    return losses.neuron(theta)


@pytest.mark.parametrize("loss", [_writing_to_a_copy, _writing_to_all, _writing_to_a_slice])
def test_a_loss_that_writes_to_its_argument_agrees_and_leaves_the_start_alone(loss):
    start = _start()
    before = start.clone()
    ours, theirs = (_run(losses.Plain(loss), start, compile=c) for c in (True, False))
    assert_equal(ours.position, theirs.position)
    assert_equal(start, before)


def test_a_changed_number_in_the_loss_is_noticed():
    problem = losses.Scaled(1.0)
    _run(problem)
    problem.factor = 2.0
    assert_equal(_run(problem).position, _run(losses.Scaled(2.0), compile=False).position)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_changed_tensor_in_the_loss_is_read_anew(in_place):
    problem = losses.Scaled(torch.tensor(1.0, dtype=torch.float64))
    _run(problem)
    if in_place:
        problem.factor.fill_(2.0)
    else:
        problem.factor = torch.tensor(2.0, dtype=torch.float64)
    assert_equal(_run(problem).position, _run(losses.Scaled(2.0), compile=False).position)


def test_changed_indices_in_the_loss_are_noticed():
    order = torch.tensor([0, 1])
    problem = losses.Plain(lambda theta: losses.neuron(theta[..., order]))
    _run(problem)
    order.copy_(torch.tensor([1, 0]))
    assert_equal(_run(problem).position, _run(problem, compile=False).position)


class _Held:
    """A condition with a tensor that has one number per leaf of θ, or per trajectory."""

    def __init__(self, numbers):
        self.numbers = numbers


class _Beyond(_Held):
    def __call__(self, state, evaluation):
        return state.position[0] > self.numbers[0]


class _Below(_Held):
    def __call__(self, state, evaluation):
        return evaluation.loss < self.numbers


def _below(limits):
    return lambda state, evaluation: evaluation.loss < limits


@pytest.mark.parametrize(
    ("stop", "words"),
    [(_Beyond, "shape of the batch"), (_Below, "shape of the batch"), (_below, "for several")],
)
def test_a_stop_condition_with_as_many_numbers_as_trajectories_runs_in_eager_torch(
    stop, words, monkeypatch
):
    monkeypatch.setattr(importlib.import_module("flowopt.integrate"), "WORTH_A_KERNEL", 0)
    problem, start = losses.Plain(losses.neuron), _start(2)
    arguments = {"stop": stop(torch.tensor([0.4, 0.2], dtype=torch.float64)), "steps": 200}
    ours, theirs = (_run(problem, start, compile=c, **arguments) for c in ("auto", False))
    assert words in ours.engine
    assert_equal(ours.steps, theirs.steps)
    assert_equal(ours.position, theirs.position)


def test_small_runs_stay_in_eager_torch_and_say_so():
    assert "fewer than" in _run(losses.Scaled(1.0), compile="auto").engine
    assert "compile=False" in _run(losses.Scaled(1.0), compile=False).engine


def test_large_runs_use_a_kernel_by_themselves():
    start = _start(COUNT)
    assert _run(losses.Scaled(1.0), start, STEPS, compile="auto").engine == "native kernel"


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(3)], ids=repr)
def test_a_network_that_only_steps_alone_runs_in_eager_torch(layer, monkeypatch):
    monkeypatch.setattr(importlib.import_module("flowopt.integrate"), "WORTH_A_KERNEL", 0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), layer)
    data = torch.ones(4, 2), torch.zeros(4, 3)
    training = fo.train(module, torch.nn.functional.mse_loss, data, fo.classic.sgd(lr=0.1), steps=3)
    assert training.status == fo.Status.STEPS_TAKEN
    assert "the loss is not taken of a batch: Sequential" in training.solution.engine


def test_step_sizes_that_follow_the_rounding_of_an_error_are_no_mismatch():
    # The flow is nearly straight there: 1e-8 asks for no more than the rounding of its stages.
    low, high, pixels = -2.0, 2.0, 480
    line = low + (high - low) / pixels * torch.arange(pixels, dtype=torch.float64)
    size = (high - low) / pixels
    start = torch.cartesian_prod(line + 0.382 * size, line + 0.272 * size)
    control = fo.ErrorControl(rtol=1e-8, atol=1e-8)
    problem = fo.problems.analytic("cloche")
    solution = fo.integrate(
        fo.flows.gradient_flow(),
        fo.RungeKutta("dopri5"),
        problem,
        start.flip(-1),
        control=control,
        steps=1,
        compile=True,
    )
    assert solution.engine == "native kernel"


SLOW = fo.ExpectedSlope(first_step=1e-3, start=1.0)


@pytest.mark.parametrize(
    ("flow", "scheme", "problem", "control"),
    [
        (fo.flows.gradient_flow(), fo.RungeKutta("dopri5"), "exp_four", fo.ErrorControl()),
        (slow_flow("rmsprop"), fo.RungeKutta("dopri5"), "rosenbrock", SLOW),
    ],
    ids=["first step by the drift", "next step by the slope"],
)
def test_float64_numbers_made_of_float32_ones_are_no_mismatch(flow, scheme, problem, control):
    problem, start = PROBLEMS[problem](), _start(37).to(torch.float32) / 2
    solution = fo.integrate(flow, scheme, problem, start, control=control, steps=2, compile=True)
    assert solution.engine == "native kernel"
