"""`Stepper.advance` is one straight graph for every flow, scheme and control."""

from dataclasses import replace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

import flowopt as fo
from flowopt.core.curvature.solving import solving
from flowopt.core.noise import PhiloxNoise
from flowopt.core.oracle import LossOracle
from flowopt.registry import CONTROLS, PROBLEMS
from flowopt.stepper import Stepper
from tests.reference.pairs import PAIRS, controlled_pairs
from tests.reference.states import HILLS, Loss

CPU = torch.device("cpu")
TRIALS = 8


class Trial:
    """One advance as a function of everything that changes between launches."""

    def __init__(self, pair, control, problem, stop=None):
        self.pair, self.control, self.stop = pair, control, stop
        self.oracle = LossOracle(problem, torch.float64, CPU)

    def __call__(self, carry, hyperparameters, seed, trajectory, end_time, last_step):
        stepper = Stepper(
            self.pair.flow.with_hyperparameters(**hyperparameters),
            self.pair.scheme,
            self.oracle,
            PhiloxNoise(seed, trajectory),
            self.control,
            self.stop,
            end_time,
            last_step,
        )
        with torch.no_grad():
            return stepper.advance(carry)

    def inputs(self, position, *, factor=1.0, seed=0):
        """Arguments for one trajectory from a position, hyperparameters times a factor."""
        flow = self.pair.flow
        values = {name: value * factor for name, value in flow.hyperparameters.items()}
        leaves = self.oracle.leaves(torch.tensor([position], dtype=torch.float64))
        evaluation = solving(self.oracle, flow.damping).evaluate(leaves, None)
        step = torch.zeros(1, dtype=torch.int64)
        trajectory = torch.tensor([seed])
        end_time = torch.full((1,), 10.0, dtype=torch.float64)
        with torch.no_grad():
            state = flow.with_hyperparameters(**values).initial_state(
                leaves, step, lambda _: evaluation
            )
            noise = PhiloxNoise(torch.tensor(seed), trajectory)
            stepper = Stepper(flow, self.pair.scheme, self.oracle, noise, self.control)
            carry = stepper.start(state, evaluation)
            step_size, memory = self.control.refresh(state, carry.step_size, carry.memory, TRIALS)
        carry = replace(carry, step_size=step_size, memory=memory)
        return carry, values, torch.tensor(seed), trajectory, end_time, step + 3


def assert_straight(graph):
    """Operations only: no part that is called, no value that leaves the tensors."""
    kinds = {node.op for node in graph.graph.nodes}
    assert kinds <= {"placeholder", "call_function", "get_attr", "output"}
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not {target for target in targets if "local_scalar_dense" in target}


def assert_same(traced, eager):
    for ours, theirs in zip(pytree.tree_leaves(traced), pytree.tree_leaves(eager), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("pair", "control"), controlled_pairs(), ids=str)
def test_a_trial_is_one_straight_graph_that_other_inputs_may_use(pair, control):
    """Fake tensors have no values, so a branch on data would raise, as taking a value does."""
    control = CONTROLS[control](pair.step_size)
    trial = Trial(pair, control, HILLS)
    # Tensors that a control holds, such as tolerances, are real: this mode lets them in.
    mode = "fake" if isinstance(control, fo.Constant | fo.Schedule) else "real"
    graph = make_fx(trial, tracing_mode=mode)(*trial.inputs((0.3, 0.7)))
    assert_straight(graph)
    others = trial.inputs((-0.5, 1.2), factor=1.1, seed=9)
    assert_same(graph(*others), trial(*others))


@pytest.mark.parametrize("stop", [fo.stop.gradient(1e-3), fo.stop.rest(1e-3)])
def test_stop_conditions_are_part_of_the_graph(stop):
    pair = next(pair for pair in PAIRS if pair.name == "heavy_ball")
    trial = Trial(pair, fo.Constant(0.1), HILLS, stop)
    # Tensors that conditions and losses hold are real: this mode lets them in.
    graph = make_fx(trial, tracing_mode="real")(*trial.inputs((0.3, 0.7)))
    others = trial.inputs((1e-5, 1e-5))
    assert_same(graph(*others), trial(*others))


def network_loss(theta):
    """A 1-2-1 tanh network on three points: products, a matrix, activations, a mean."""
    inputs = torch.tensor([[-1.0], [0.3], [0.9]], dtype=torch.float64)
    hidden = torch.tanh(inputs * theta[..., None, 0:2] + theta[..., None, 2:4])
    outputs = (hidden * theta[..., None, 4:6]).sum(-1)
    return ((outputs - torch.sin(3 * inputs[:, 0])) ** 2).mean(-1)


@pytest.mark.parametrize(
    ("loss", "dim"),
    [
        (PROBLEMS["rosenbrock"]().loss, 2),
        (PROBLEMS["double_well"]().loss, 1),
        (network_loss, 6),
        (lambda theta: torch.logsumexp(theta, -1) + torch.linalg.vector_norm(theta - 1, dim=-1), 4),
        (lambda theta: theta[0] ** 2 + torch.dot(theta, theta), 3),
    ],
    ids=["rosenbrock", "double well", "network", "logsumexp", "one point at a time"],
)
def test_the_gradient_of_a_users_loss_is_part_of_the_graph(loss, dim):
    pair = next(pair for pair in PAIRS if str(pair) == "langevin Splitting('BAOAB')")
    trial = Trial(pair, fo.Constant(0.01), Loss(loss, dim))
    start = [0.1 * (i + 1) for i in range(dim)]
    graph = make_fx(trial, tracing_mode="real")(*trial.inputs(start))
    others = trial.inputs([0.3 - x for x in start], factor=0.9, seed=4)
    assert_same(graph(*others), trial(*others))


def test_noise_is_one_node_per_draw():
    pair = next(pair for pair in PAIRS if str(pair) == "langevin Splitting('OBABO')")
    trial = Trial(pair, fo.Constant(0.01), HILLS)
    graph = make_fx(trial, tracing_mode="fake")(*trial.inputs((0.3, 0.7)))
    draws = [node for node in graph.graph.nodes if "flowopt.normal" in str(node.target)]
    assert len(draws) == 2


def test_a_branch_on_data_would_be_seen():
    """The test above can fail: a loss that asks for a value does not trace."""
    pair = PAIRS[0]

    def branching(theta):
        return theta[..., 0] ** 2 if theta.sum() > -100.0 else theta[..., 0]

    trial = Trial(pair, fo.Constant(0.01), Loss(branching, 1))
    with pytest.raises(RuntimeError, match="data-dependent|get value out of"):
        make_fx(trial, tracing_mode="fake")(*trial.inputs((0.3,)))


def test_leaves_keep_their_dtype_in_float32():
    pair = next(pair for pair in PAIRS if pair.name == "adam")
    solution = fo.integrate(
        pair.flow, pair.scheme, HILLS, torch.tensor([0.3, 0.7]), step_size=1e-3, steps=3
    )
    dtypes = {leaf.dtype for leaves in solution.state.variables.values() for leaf in leaves}
    assert dtypes == {torch.float32}
    assert solution.state.time.dtype == torch.float64
