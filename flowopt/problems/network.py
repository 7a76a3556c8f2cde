"""Any torch module with data as a problem, alone or as an ensemble of replicas."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowopt.core.curvature.gauss_newton import Composition
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Sample
from flowopt.core.probing import describe
from flowopt.core.state import Leaves
from flowopt.errors import DataError


@dataclass(frozen=True)
class Minibatches:
    """How rows of the data are drawn.

    Attributes:
        size: Rows per step.
        shared: Whether the replicas of an ensemble see the same rows.
        replacement: Whether rows are drawn independently; else each epoch is a new permutation,
            of which an incomplete last minibatch is left out.
    """

    size: int
    shared: bool = True
    replacement: bool = False

    def __post_init__(self) -> None:
        """Checks what came."""
        whole = isinstance(self.size, int) and not isinstance(self.size, bool)
        if not whole or self.size < 1:
            raise DataError(f"a minibatch has at least one row, got size={self.size!r}")
        for name in ("shared", "replacement"):
            if not isinstance(getattr(self, name), bool):
                raise DataError(f"{name} is True or False, got {getattr(self, name)!r}")


class Network:
    """Mean loss of a module over data.

    Attributes:
        module: The module; its parameters are the start, and are never written.
        dim: Number of trainable parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        data: tuple[Tensor, Tensor],
        batch: Minibatches | None = None,
    ):
        """See `network`."""
        if not isinstance(module, nn.Module):
            raise DataError(
                f"a network is a torch.nn.Module, got {type(module).__name__}: for a function of "
                "theta give integrate any object with dim and loss(theta)"
            )
        if not callable(loss):
            raise DataError(
                f"loss={loss!r} is no function of (outputs, targets): give one such as "
                "torch.nn.functional.cross_entropy"
            )
        if not isinstance(batch, Minibatches | None):
            raise DataError(f"batch={batch!r}: give Minibatches(size), or None for all rows")
        self.module = module
        self._loss = loss
        self.inputs, self.targets = checked_data(data)
        self.minibatches = batch
        self.names = [n for n, w in module.named_parameters() if w.requires_grad]
        self._shapes = {n: w.shape for n, w in module.named_parameters()}
        self.dim = sum(math.prod(self._shapes[name]) for name in self.names)
        if self.dim == 0:
            raise DataError(f"{type(module).__name__} has no trainable parameter")
        if batch is not None and batch.size > len(self.inputs):
            raise DataError(
                f"minibatches of {batch.size} rows from data with {len(self.inputs)} rows"
            )
        self._epochs: dict[tuple[int, ...], tuple[int, Tensor]] = {}

    def start(self, replicas: int | None = None) -> dict[str, Tensor]:
        """The module's parameters, by name.

        Args:
            replicas: Number of copies along a new first axis; none for a single network.
        """
        values = {name: self.module.get_parameter(name).detach().clone() for name in self.names}
        if replicas is None:
            return values
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1:
            raise DataError(f"replicas is a whole number from 1, got {replicas!r}")
        return {name: torch.stack([value] * replicas) for name, value in values.items()}

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters of a single network."""
        return tuple(tuple(self._shapes[name]) for name in self.names)

    def leaves(self, start: object) -> Leaves:
        """Parameter tensors of a start given by name; one more axis in front for replicas."""
        if not isinstance(start, Mapping) or set(start) != set(self.names):
            got = sorted(start) if isinstance(start, Mapping) else type(start).__name__
            raise DataError(
                f"the start of a network maps parameter names to tensors, got {got}, expected "
                f"{self.names}: use problem.start()"
            )
        for name in self.names:
            value = start[name]
            if not isinstance(value, Tensor) or not (
                value.is_floating_point() or value.is_complex()
            ):
                came = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise DataError(f"{name} is {came}, expected a tensor of floating-point numbers")
        leaves = tuple(start[name].detach().clone() for name in self.names)
        batch = self.batch(leaves)
        for name, leaf in zip(self.names, leaves, strict=True):
            if leaf.shape != (*batch, *self._shapes[name]):
                raise DataError(
                    f"{name} has shape {tuple(leaf.shape)}, expected "
                    f"{(*batch, *self._shapes[name])}"
                )
        return leaves

    def batch(self, position: Leaves) -> tuple[int, ...]:
        """() for a network, (replicas,) for an ensemble."""
        extra = position[0].ndim - len(self._shapes[self.names[0]])
        if extra not in (0, 1):
            raise DataError(
                f"{self.names[0]} has shape {tuple(position[0].shape)}, expected "
                f"{tuple(self._shapes[self.names[0]])} with at most one axis of replicas before it"
            )
        return tuple(position[0].shape[:extra])

    def join(self, position: Leaves) -> dict[str, Tensor]:
        """Parameters by name, as `module.load_state_dict(…, strict=False)` takes them."""
        return dict(zip(self.names, position, strict=True))

    def draw(self, step: int, seed: int, batch: tuple[int, ...]) -> Sample:
        """Row numbers of a step, a pure function of step and seed; None for all rows.

        Returns:
            (size,) where all networks see the same rows, else (replicas, size).
        """
        if self.minibatches is None:
            return None
        if self.minibatches.shared or not batch:
            return self._rows(self.minibatches, step, (seed,))[0]
        return self._rows(self.minibatches, step, tuple(_mixed(seed, i + 1) for i in range(*batch)))

    def _rows(self, minibatches: Minibatches, step: int, seeds: tuple[int, ...]) -> Tensor:
        """Rows of one minibatch for each seed, (seeds, size)."""
        rows, size = len(self.inputs), minibatches.size
        if minibatches.replacement:
            drawn = [torch.randint(rows, (size,), generator=_generator(s, step)) for s in seeds]
            return torch.stack(drawn).to(self.inputs.device)
        epoch, place = divmod(step, rows // size)
        return self._permutations(epoch, seeds)[:, place * size : (place + 1) * size]

    def _permutations(self, epoch: int, seeds: tuple[int, ...]) -> Tensor:
        if seeds not in self._epochs or self._epochs[seeds][0] != epoch:
            drawn = [
                torch.randperm(len(self.inputs), generator=_generator(s, epoch)) for s in seeds
            ]
            self._epochs[seeds] = (epoch, torch.stack(drawn).to(self.inputs.device))
        return self._epochs[seeds][1]

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets; the loss is a mean over their rows."""
        return self.inputs, self.targets

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Loss and gradient on the rows of a sample."""
        return self.evaluate_rows(position, self._sampled(sample))

    def evaluate_rows(self, position: Leaves, rows: tuple[Tensor, ...]) -> Evaluation:
        """Loss and gradient on rows given as inputs and targets.

        Args:
            position: Leaves, for replicas with one more axis in front.
            rows: Of `tables`, (rows, …); or (replicas, rows, …), for each replica its own.
        """
        leaves = tuple(leaf.detach().requires_grad_() for leaf in position)
        with torch.enable_grad():
            losses = self._losses(leaves, rows)
            if not losses.requires_grad:
                raise DataError(
                    f"the loss of {type(self.module).__name__} does not depend on its parameters "
                    "through torch operations, so it has no gradient: no .detach(), .item() or "
                    "numpy inside"
                )
            gradient = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
        return Evaluation(losses.detach(), gradient)

    def loss(self, position: Mapping[str, Tensor]) -> Tensor:
        """Mean loss over all rows, () or (replicas,)."""
        with torch.no_grad():
            return self._losses(self.leaves(position), self.tables)

    def outputs(self, position: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the module gives for inputs, without gradient; replicas along the first axis."""
        leaves = self.leaves(position)
        with torch.no_grad():
            if not self.batch(leaves):
                return torch.func.functional_call(self.module, self.join(leaves), (inputs,))
            call = torch.func.functional_call
            return torch.vmap(lambda w: call(self.module, w, (inputs,)))(self.join(leaves))

    def losses(self, position: Leaves, sample: Sample) -> Tensor:
        """Mean loss on the rows of a sample, (*batch,); differentiable in the position."""
        return self._losses(position, self._sampled(sample))

    def composed(self, position: Leaves, sample: Sample) -> Composition:
        """The loss as a function of what the module gives, for the Gauss–Newton matrix."""
        rows = self._sampled(sample)
        batch, own = self.batch(position), rows[0].ndim > self.inputs.ndim
        outputs = self._mapped(self._outputs, batch, own)(self.join(position), rows[0])
        shape = outputs.shape[len(batch) :]

        def loss(flat: Tensor, targets: Tensor) -> Tensor:
            return self._loss(flat.reshape(shape), targets)

        def losses(flat: Tensor) -> Tensor:
            return self._mapped(loss, batch, own)(flat, rows[1])

        def jacobian() -> tuple[Tensor, int] | None:
            try:
                found, alone = self._mapped(self._jacobian, batch, own)(
                    self.join(position), rows[0]
                )
            # The user's module may raise anything when it is given one row.
            except Exception:
                return None
            # Not so where rows meet within the module, as in batch norm.
            apart = torch.allclose(alone, outputs.reshape(alone.shape), rtol=1e-4, atol=1e-6)
            return (found, shape[1:].numel()) if apart else None

        return Composition(outputs.reshape(*batch, -1), losses, jacobian)

    def _mapped(self, function: Callable, batch: tuple[int, ...], own_rows: bool) -> Callable:
        """A function of parameters and rows for every replica."""
        return torch.vmap(function, in_dims=(0, 0 if own_rows else None)) if batch else function

    def _outputs(self, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return torch.func.functional_call(self.module, parameters, (inputs,))

    def _jacobian(self, parameters: dict[str, Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of outputs by the row that each depends on alone, and the outputs."""

        def of_row(values: dict[str, Tensor], row: Tensor) -> tuple[Tensor, Tensor]:
            output = self._outputs(values, row[None]).reshape(-1)
            return output, output

        derivative = torch.func.jacrev(of_row, has_aux=True)
        by_name, outputs = torch.vmap(derivative, in_dims=(None, 0))(parameters, inputs)
        parts = [by_name[name].flatten(0, 1).flatten(1) for name in self.names]
        return torch.cat(parts, -1), outputs

    def _sampled(self, sample: Sample) -> tuple[Tensor, ...]:
        return self.tables if sample is None else tuple(table[sample] for table in self.tables)

    def _losses(self, leaves: Leaves, rows: tuple[Tensor, ...]) -> Tensor:
        def mean_loss(parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            outputs = torch.func.functional_call(self.module, parameters, (inputs,))
            return self._loss(outputs, targets)

        batch = self.batch(leaves)
        if not batch:
            losses = mean_loss(self.join(leaves), *rows)
        else:
            axis = 0 if rows[0].ndim > self.inputs.ndim else None
            mapped = torch.vmap(mean_loss, in_dims=(0, axis, axis))
            try:
                losses = mapped(self.join(leaves), *rows)
            # What torch raises where a module draws random numbers, or writes to its buffers.
            except RuntimeError as error:
                raise DataError(
                    f"{type(self.module).__name__} can not be vectorised over replicas: {error}\n"
                    "Use module.eval(), or step one network at a time"
                ) from error
        if not isinstance(losses, Tensor) or losses.shape != batch:
            raise DataError(
                f"the loss has {describe(losses, None)}, expected one number per network: "
                "use a mean over rows, as torch.nn.functional.cross_entropy gives"
            )
        return losses


def network(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: tuple[Tensor, Tensor],
    *,
    batch: Minibatches | None = None,
) -> Network:
    """A module, its loss and its data as a problem for `integrate`.

    Args:
        module: Any module; the trainable parameters move, buffers stay the module's own. What it
            draws itself, as dropout does in train mode, comes from the seed of `integrate` and the
            number of its first step. Replicas, and controls that compare losses, need a module that
            draws nothing, as by `module.eval()`.
        loss: (outputs, targets) → 0-d mean loss, such as `torch.nn.functional.cross_entropy`.
        data: Inputs (rows, …) and targets (rows, …), on the module's device.
        batch: Minibatches; all rows at every step where not given.

    Raises:
        DataError: The data is empty, its parts differ in length, or nothing is trainable.
    """
    return Network(module, loss, data, batch)


def checked_data(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Inputs and targets with as many rows; raises `DataError` for anything else."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise DataError("data is a pair (inputs, targets) of tensors")
    inputs, targets = data
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
        raise DataError("data is a pair (inputs, targets) of tensors")
    apart = inputs.shape[:1] != targets.shape[:1]
    if apart or not inputs.ndim or not len(inputs):
        raise DataError(
            f"inputs of shape {tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}: "
            "both need the same number of rows, at least one"
        )
    return inputs, targets


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mixed(seed, number))


def _mixed(seed: int, number: int) -> int:
    """One seed of two numbers."""
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) % 2**63
