"""Wrong starts, losses and data are refused in words."""

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.problems import Minibatches, network
from tests.reference.states import HILLS, Loss

QUADRATIC = fo.problems.quadratic([1.0, 4.0])
START = torch.tensor([1.0, 2.0], dtype=torch.float64)


def run(flow=None, scheme=None, problem=QUADRATIC, start=START, **settings):
    step = {} if "control" in settings else {"step_size": 0.1}
    settings = {**step, "steps": 5, **settings}
    return fo.integrate(
        flow or fo.flows.gradient_flow(), scheme or fo.Euler(), problem, start, **settings
    )


@pytest.mark.parametrize(
    ("start", "match"),
    [
        ([1.0, 2.0], "got list: use torch.tensor"),
        (None, "got NoneType"),
        ({"theta": START}, "got dict"),
        (torch.tensor(1.0), r"has shape \(\), expected \(\*batch, 2\)"),
        (START[:1], r"has shape \(1,\), expected \(\*batch, 2\)"),
        (torch.zeros(2, 3), r"has shape \(2, 3\), expected \(\*batch, 2\)"),
        (torch.zeros(2, dtype=torch.int64), "has dtype torch.int64, expected float64 or float32"),
        (torch.zeros(2, dtype=torch.float16), "has dtype torch.float16"),
        (torch.zeros(2, dtype=torch.complex128), "has dtype torch.complex128"),
        (START.clone().requires_grad_(), "integrate is not differentiable .* detach it"),
    ],
    ids=str,
)
def test_a_start_of_the_wrong_kind_is_refused(start, match):
    with pytest.raises(fo.DataError, match=match):
        run(start=start)


@pytest.mark.parametrize(
    "problem",
    [
        None,
        lambda theta: theta,
        Loss(HILLS.loss, dim=0),
        Loss(HILLS.loss, dim=2.0),
        nn.Linear(2, 1),
    ],
    ids=["None", "function", "no dimension", "float dimension", "module"],
)
def test_what_is_no_problem_is_refused(problem):
    with pytest.raises(fo.DataError, match="is no problem: it needs dim"):
        run(problem=problem)


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (lambda x: x**2, r"it gave shape \(2,\) and shape \(3, 2\)"),
        (lambda x: (x**2).sum(-1, keepdim=True), r"it gave shape \(1,\) and shape \(3, 1\)"),
        (lambda x: (x**2).sum().item(), "it gave float and float"),
        (lambda x: None, "it gave NoneType and NoneType"),
        (lambda x: x @ torch.zeros(5), "it gave RuntimeError .* and RuntimeError"),
        (lambda x: 1 / 0, r"ZeroDivisionError \(division by zero\)"),
    ],
)
def test_a_loss_of_the_wrong_shape_is_refused_with_what_it_gave(loss, match):
    with pytest.raises(
        fo.DataError, match=r"must map \(2,\) to a 0-d tensor and \(3, 2\) to \(3,\)"
    ):
        run(problem=Loss(loss))
    with pytest.raises(fo.DataError, match=match):
        run(problem=Loss(loss))


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: (x**2).sum(-1).detach(),
        lambda x: torch.zeros(x.shape[:-1]),
        torch.no_grad()(lambda x: (x**2).sum(-1)),
    ],
)
def test_a_loss_without_a_gradient_is_refused(loss):
    with pytest.raises(fo.DataError, match="so it has no gradient: no .detach"):
        run(problem=Loss(loss))


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: x[0] ** 2 / 2 + 2 * x[1] ** 2,
        lambda x: torch.dot(x, torch.tensor([0.5, 2.0], dtype=torch.float64) * x),
        lambda x: (torch.tensor([0.5, 2.0], dtype=torch.float64) * x**2).sum(),
    ],
    ids=["indices", "dot", "sum over everything"],
)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_a_loss_of_one_point_serves_a_batch(loss, shape):
    start = START.expand(*shape, 2) * torch.rand(
        *shape, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    expected = run(start=start)
    found = run(problem=Loss(loss), start=start)
    torch.testing.assert_close(found.position, expected.position, rtol=1e-14, atol=0)
    assert found.loss.shape == shape


def test_a_loss_that_ignores_a_parameter_leaves_it_alone():
    end = run(problem=Loss(lambda x: x[..., 0] ** 2))
    assert end.position[1] == START[1]


def small():
    return nn.Linear(2, 1).double()


INPUTS = torch.zeros(5, 2, dtype=torch.float64)
TARGETS = torch.zeros(5, 1, dtype=torch.float64)
MSE = nn.functional.mse_loss


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: network(small(), MSE, (INPUTS[:0], TARGETS[:0])), "at least one"),
        (lambda: network(small(), MSE, (INPUTS, TARGETS[:3])), "same number of rows"),
        (lambda: network(small(), MSE, INPUTS), "data is a pair"),
        (lambda: network(small(), MSE, ([1.0], [2.0])), "data is a pair"),
        (lambda: network(small(), MSE, (INPUTS[0, 0], TARGETS[0, 0])), r"shape \(\) and targets"),
        (
            lambda: network(small(), MSE, (INPUTS, TARGETS), batch=Minibatches(6)),
            "minibatches of 6 rows from data with 5 rows",
        ),
        (lambda: Minibatches(0), "at least one row, got size=0"),
        (lambda: Minibatches(2.5), "at least one row, got size=2.5"),
        (lambda: network(nn.ReLU(), MSE, (INPUTS, TARGETS)), "ReLU has no trainable parameter"),
    ],
)
def test_data_that_does_not_fit_is_refused(make, match):
    with pytest.raises(fo.DataError, match=match):
        make()


@pytest.mark.parametrize(
    ("start", "match"),
    [
        (START, "maps parameter names to tensors, got Tensor"),
        ({"weight": torch.zeros(1, 2)}, r"got \['weight'\], expected \['weight', 'bias'\]"),
        (
            {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)},
            r"weight has shape \(1, 3\), expected \(1, 2\)",
        ),
        (
            {"weight": torch.zeros(2, 2, 1, 2), "bias": torch.zeros(1)},
            "with at most one axis of replicas",
        ),
        ({"weight": [[0.0, 0.0]], "bias": torch.zeros(1)}, "weight is list, expected a tensor of"),
        (
            {"weight": torch.zeros(1, 2), "bias": torch.zeros(1, dtype=torch.int64)},
            "bias is torch.int64, expected a tensor of floating-point numbers",
        ),
    ],
)
def test_the_start_of_a_network_is_checked(start, match):
    with pytest.raises(fo.DataError, match=match):
        run(problem=network(small(), MSE, (INPUTS, TARGETS)), start=start)


def test_parameters_that_require_grad_are_no_start():
    module = small()
    problem = network(module, MSE, (INPUTS, TARGETS))
    with pytest.raises(fo.DataError, match="integrate is not differentiable"):
        run(problem=problem, start=dict(module.named_parameters()))


def test_a_loss_that_is_not_reduced_is_refused():
    problem = network(small(), lambda a, b: (a - b) ** 2, (INPUTS, TARGETS))
    with pytest.raises(fo.DataError, match=r"the loss has shape \(5, 1\), expected one number"):
        run(problem=problem, start=problem.start())


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(1)], ids=["dropout", "norm"])
def test_replicas_of_what_can_not_be_vectorised_are_refused(layer):
    problem = network(nn.Sequential(small(), layer), MSE, (INPUTS, TARGETS))
    with pytest.raises(fo.DataError, match=r"Sequential can not be vectorised over replicas: "):
        run(problem=problem, start=problem.start(2))


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (lambda a, b: 1.0, "the loss has float, expected one number per network"),
        (lambda a, b: MSE(a, b).detach(), "the loss of Linear does not depend on its parameters"),
    ],
)
def test_a_loss_of_a_network_that_is_no_function_of_its_parameters_is_refused(loss, match):
    problem = network(small(), loss, (INPUTS, TARGETS))
    with pytest.raises(fo.DataError, match=match):
        run(problem=problem, start=problem.start())


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_a_loss_that_mixes_a_batch_is_found_out_in_any_unit(unit):
    # Of one point the mean is that of its coordinates; of a batch, that of its points.
    loss = Loss(lambda theta: unit * ((theta - theta.mean(0)) ** 2).sum(-1))
    start = torch.tensor([[1.0, 2.0], [5.0, -3.0]], dtype=torch.float64)
    together = run(problem=loss, start=start, step_size=0.1 / unit).position
    for place, one in enumerate(start):
        alone = run(problem=loss, start=one, step_size=0.1 / unit).position
        torch.testing.assert_close(together[place], alone, rtol=1e-12, atol=0)


class Drawn(nn.Module):
    """A module that draws random numbers, as dropout does."""

    def __init__(self):
        super().__init__()
        self.layer = small()

    def forward(self, inputs):
        return self.layer(inputs) * torch.rand(())


@pytest.mark.parametrize(
    "problem",
    [
        network(Drawn(), MSE, (INPUTS, TARGETS + 1)),
        Loss(lambda x: (x * x).sum() * torch.rand(())),
        Loss(lambda x: 1e-12 * (x * x).sum() * torch.rand(())),
    ],
    ids=["network", "landscape", "small unit"],
)
def test_a_control_that_compares_losses_refuses_one_that_draws_random_numbers(problem):
    start = problem.start() if hasattr(problem, "start") else START
    with pytest.raises(
        fo.CompatibilityError, match="called again at the same place, .* module.eval"
    ):
        run(problem=problem, start=start, control=fo.LyapunovControl())
    assert run(problem=problem, start=start).status == fo.Status.STEPS_TAKEN
