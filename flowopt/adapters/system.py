"""A flow on a problem as one vector field on packed states, differentiable."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from flowopt.core.curvature.solving import solving
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import FlowLike, Oracle
from flowopt.core.oracle import Problem, as_oracle
from flowopt.core.partition import places_of
from flowopt.core.state import Leaves, State
from flowopt.errors import CompatibilityError, DataError


class Placed(Protocol):
    """What has a dtype and a device, as tensors and Brownian paths do."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        ...


class System(torch.nn.Module):
    """What the systems for torchdiffeq and torchsde have in common.

    A packed state is a tensor (*batch, numbers): the elements of θ, of the other variables in the
    order of `flow.variables`, and one number for each of `flow.scalars`. Minibatches have no place
    here: a network's loss is over all its rows.

    Attributes:
        flow: The equation.
        problem: Whose loss it descends.
    """

    def __init__(self, flow: FlowLike, problem: Problem | Oracle):
        """See `to_torchdiffeq` and `to_torchsde`."""
        super().__init__()
        self.flow, self.problem = flow, problem
        self._oracles: dict[tuple, Oracle] = {}
        self._fits: dict[tuple, FlowLike] = {}
        self._loss_has_graph: bool | None = None

    def unpack(self, packed: Tensor, time: float | Tensor) -> State:
        """The state of a packed one, its step number 0.

        Args:
            packed: (*leading, numbers), such as (*batch, numbers) or (time, *batch, numbers).
            time: One number, or as many as the first dimensions of `packed` have.

        Returns:
            A state whose batch is `leading`.
        """
        shapes, leading = self._oracle(packed).shapes, packed.shape[:-1]
        lengths = self.lengths(packed)
        if packed.shape[-1] != sum(lengths.values()):
            raise DataError(
                f"a packed state of flow {self.flow.name!r} on this problem has "
                f"{sum(lengths.values())} numbers, got shape {tuple(packed.shape)}: pack(start) "
                "makes one"
            )
        parts = dict(zip(lengths, packed.split([*lengths.values()], -1), strict=True))
        variables = {}
        for name in self.flow.variables:
            own = self._shapes(name, shapes)
            pieces = parts[name].split([math.prod(shape) for shape in own], -1)
            pairs = zip(pieces, own, strict=True)
            variables[name] = tuple(piece.reshape((*leading, *shape)) for piece, shape in pairs)
        values = {name: parts[name][..., 0].to(torch.float64) for name in self.flow.scalars}
        moment = torch.as_tensor(time, dtype=torch.float64, device=packed.device)
        moment = moment.reshape(moment.shape + (1,) * (len(leading) - moment.ndim))
        moment = moment.expand(leading)
        return State(variables, values, moment, torch.zeros_like(moment, dtype=torch.int64))

    def lengths(self, like: Placed) -> dict[str, int]:
        """How many numbers of a packed state each variable and each scalar has, in their order."""
        shapes = self._oracle(like).shapes
        variables = {
            name: sum(math.prod(shape) for shape in self._shapes(name, shapes))
            for name in self.flow.variables
        }
        return {**variables, **dict.fromkeys(self.flow.scalars, 1)}

    def _shapes(self, variable: str, shapes: Sequence[tuple]) -> list[tuple[int, ...]]:
        """Shapes of the leaves of a variable, of those that θ has."""
        return [shapes[place] for place in places_of(self.flow.partition, variable, len(shapes))]

    def position(self, packed: Tensor) -> Any:
        """θ of packed states, (*leading, dim), or parameters by name for a network."""
        oracle = self._oracle(packed)
        return oracle.join(self.unpack(packed, 0.0).position)

    def state(self, start: object) -> State:
        """The state with which a start begins, where the drift is regular."""
        if isinstance(start, State):
            return start
        leaves = _first_tensor(start)
        oracle = self._oracle(leaves)
        position = oracle.leaves(start)
        step = torch.zeros(oracle.batch(position), dtype=torch.int64, device=leaves.device)
        flow = self._fitted(step)
        return flow.initial_state(position, step, lambda s: self.evaluate(s.position), later=True)

    def drift(self, time: float | Tensor, packed: Tensor) -> Tensor:
        """The summed drift at a packed state.

        Args:
            time: One number, or (*batch,).
            packed: (*batch, numbers).

        Returns:
            (*batch, numbers), differentiable in `packed`, in hyperparameters and in what else the
            loss depends on.
        """
        state = self.unpack(packed, time)
        return self.packed(self._fitted(state.time).drift(state, self.evaluate(state.position)))

    def evaluate(self, position: Leaves) -> Evaluation:
        """Loss and gradient over all data; part of the graph where one is being made."""
        oracle = self._oracle(position[0])
        if not torch.is_grad_enabled() or not self._needs_graph(oracle, position):
            return solving(oracle, self.flow.damping).evaluate(position, None)
        if self.flow.damping is not None:
            raise CompatibilityError(
                f"flow {self.flow.name!r} solves systems, and its drift is not differentiable: "
                "call it under torch.no_grad()"
            )
        leaves = tuple(leaf if leaf.requires_grad else leaf.requires_grad_() for leaf in position)
        loss = oracle.losses(leaves, None)
        gradient = torch.autograd.grad(
            loss.sum(), leaves, create_graph=True, materialize_grads=True
        )
        return Evaluation(loss, gradient)

    def _needs_graph(self, oracle: Oracle, position: Leaves) -> bool:
        """Whether the gradient depends on something that wants a derivative."""
        if any(leaf.requires_grad for leaf in position):
            return True
        if self._loss_has_graph is None:
            self._loss_has_graph = oracle.losses(position, None).requires_grad
        return self._loss_has_graph

    def packed(self, state: State) -> Tensor:
        """Variables and scalars of a state, or of a tangent, side by side: (*batch, numbers)."""
        batch = state.time.ndim
        leaves = [leaf for name in self.flow.variables for leaf in state.variables[name]]
        columns = [leaf.flatten(batch) if leaf.ndim > batch else leaf[..., None] for leaf in leaves]
        scalars = [state.scalars[name][..., None].to(leaves[0]) for name in self.flow.scalars]
        return torch.cat([*columns, *scalars], -1)

    def _oracle(self, like: Placed) -> Oracle:
        key = (like.dtype, like.device)
        if key not in self._oracles:
            self._oracles[key] = as_oracle(self.problem, *key)
        return self._oracles[key]

    def _fitted(self, like: Tensor) -> FlowLike:
        """The flow for a batch, (*batch,), on its device."""
        key = (tuple(like.shape), like.device)
        if key not in self._fits:
            self._fits[key] = self.flow.fitted(*key)
        return self._fits[key]


def _first_tensor(start: object) -> Tensor:
    """A tensor that tells dtype and device of a start."""
    values = [start] if isinstance(start, Tensor) else list(getattr(start, "values", list)())
    found = next((value for value in values if isinstance(value, Tensor)), None)
    if found is None or not found.is_floating_point():
        raise DataError(
            "a start is a floating tensor (*batch, dim), parameters by name for a network, or an "
            f"earlier solution.state, got {type(start).__name__}"
        )
    return found
