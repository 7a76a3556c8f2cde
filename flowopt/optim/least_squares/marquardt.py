"""Levenberg–Marquardt for torch modules."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowopt.arguments import real_tensor
from flowopt.controls import Constant, Damping, Nielsen
from flowopt.controls.damping import DampingRule
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Point
from flowopt.core.noise import seeded_noise
from flowopt.core.state import Leaves, State
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.flows import gradient_flow
from flowopt.optim.contract.base import Optimizer
from flowopt.optim.distributed.parts import is_distributed
from flowopt.optim.least_squares.residuals import Residuals, residuals_of
from flowopt.problems import Network
from flowopt.schemes import LinearlyImplicitEuler
from flowopt.stepper import Carry, Stepper

NIELSEN = Nielsen()
COUNTS = ("losses", "gradients", "products", "rejected")


class LevenbergMarquardt(Optimizer):
    """Damped Gauss–Newton steps, θ ← θ − (Q + μI)⁻¹∇L, for losses that are sums of squares.

    The loss is L = ½Σr² over all residuals r that `step(residuals=…)` gives, whatever their shape:
    ∇L = Jᵀr and Q = JᵀJ with J = ∂r/∂θ. For the mean of n squared errors they are (2/n)^½ times
    the errors. The damping μ has the unit of Q and takes the place of a learning rate: a rule
    changes it at every trial. A step is the step of `LinearlyImplicitEuler` along the gradient
    flow, h = 1/μ.

    Args:
        params: Parameters, named parameters or one group, as for torch.optim.
        damping: μ > 0 of the first trial.
        rule: How μ changes, and which trials are taken: `flowopt.control.Nielsen()`, `Fletcher()`,
            `HaganMenhaj()`; None leaves μ at `group["damping"]` and takes all.
        trials: How often a step is tried at most; after that many rejections parameters stay, and
            the next step goes on with the damping reached.
        iterations: None for a dense system, of at most 4096 parameters; else iterations of
            conjugate gradients, two products each.
        acceleration: Whether to add geodesic acceleration.

    Attributes:
        counts: Sums over all steps: "losses", "gradients" (with their losses), "products" with J or
            Jᵀ, and "rejected" trials.

    Raises:
        CompatibilityError: There are several groups, or a parameter is not real and floating, or
            divided among processes.
        ConfigurationError: A value is out of range.

    Reference:
        Marquardt 1963, J. SIAM 11(2), 431; Hagan & Menhaj 1994, IEEE Trans. Neural Netw. 5(6), 989.
    """

    def __init__(
        self,
        params: Iterable,
        damping: float = 1.0,
        *,
        rule: DampingRule | None = NIELSEN,
        trials: int = 10,
        iterations: int | None = None,
        acceleration: bool = False,
    ):
        """See the class."""
        if not bool((real_tensor("damping", damping) > 0).all()):
            raise ConfigurationError(f"damping is positive, got {damping!r}")
        if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
            raise ConfigurationError(f"trials is a whole number from 1, got {trials!r}")
        if rule is not None:
            Damping(rule)
        self.flow, self.rule, self.trials = gradient_flow(), rule, trials
        self.scheme = LinearlyImplicitEuler(
            iterations=iterations, gauss_newton=True, acceleration=acceleration
        )
        self.counts = dict.fromkeys(COUNTS, 0)
        super().__init__(params, {"damping": damping})

    def __getstate__(self) -> dict[str, Any]:
        """What torch keeps, and what it would drop."""
        names = ("flow", "rule", "trials", "scheme", "counts")
        return {**super().__getstate__(), **{name: self.__dict__[name] for name in names}}

    def add_param_group(self, param_group: dict) -> None:
        """Adds the only group; parameters are real and floating.

        Raises:
            CompatibilityError: It is the second, or a parameter is not real and floating.
        """
        if self.param_groups:
            raise CompatibilityError(
                "a step of Levenberg–Marquardt solves for all parameters together: give them in "
                "one group"
            )
        super().add_param_group(param_group)
        for parameter in self.param_groups[0]["params"]:
            if is_distributed(parameter):
                raise CompatibilityError(
                    "a parameter is a distributed tensor, and a step of Levenberg–Marquardt solves "
                    "for all parameters in one process: use plain parameters"
                )
            if not parameter.is_floating_point():
                raise CompatibilityError(
                    f"a parameter has dtype {parameter.dtype}: only real floating parameters move"
                )

    @torch.no_grad()
    def step(
        self,
        closure: None = None,
        *,
        residuals: Callable[[], Tensor] | Network | None = None,
        loss: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor | None:
        """One accepted trial, or as many rejected ones as `trials` says.

        Args:
            closure: None; a loss alone is not enough.
            residuals: Gives the residuals from the parameters as they are, such as
                `lambda: (2 / len(x)) ** 0.5 * (module(x) - y)`; without random numbers. Or a
                `flowopt.problems.network` of the module, whose own loss counts then, and whose
                Jacobian is made row by row, which is faster by far.
            loss: For residuals that are outputs: a convex function of them, such as
                `lambda outputs: cross_entropy(outputs, targets)`; Q = Jᵀ∇²ℓJ then.

        Returns:
            The loss at the start of the step.

        Raises:
            CompatibilityError: There are no residuals, or no parameters that move.
        """
        group = self.param_groups[0]
        if residuals is None:
            if closure is None and not any(_moves(p) for p in group["params"]):
                return self._prepare(group)
            raise CompatibilityError(
                "Levenberg–Marquardt needs residuals, not a loss alone: call "
                "step(residuals=lambda: module(inputs) - targets), or another optimizer"
            )
        parameters = [p for p in group["params"] if p.requires_grad]
        if not parameters:
            raise CompatibilityError("no parameter requires a gradient: there is nothing to step")
        before = tuple(parameter.detach().clone() for parameter in parameters)
        oracle = residuals_of(parameters, residuals, loss)
        carry = self._begun(group, oracle, before)
        first = carry.point.evaluation.loss
        final = before
        try:
            carry = self._tried(group, oracle, carry)
            final = carry.state.position
        finally:
            for parameter, leaf in zip(parameters, final, strict=True):
                parameter.copy_(leaf)
        group["damping"] = float(1.0 / carry.step_size)
        group["memory"] = [float(value) for value in carry.memory]
        for name in COUNTS:
            self.counts[name] += int(getattr(carry, name))
        return first

    def _prepare(self, group: dict) -> None:
        """Checkpoints of torch step with gradients of zero, to have a state to load into."""
        if self.rule is None or not group["params"]:
            return
        zero = torch.zeros((), dtype=torch.float64)
        leaves = tuple(torch.zeros_like(parameter) for parameter in group["params"])
        start = Point(State({"theta": leaves}, {}, zero, zero.long()), Evaluation(zero, leaves))
        memory = self.rule.start(start)
        if not any(value.ndim for value in memory):
            group.setdefault("memory", [float(value) for value in memory])

    def _stepper(self, group: dict, oracle: Residuals) -> Stepper:
        damping = torch.as_tensor(group["damping"], dtype=torch.float64)
        control = Constant(1.0 / damping) if self.rule is None else Damping(self.rule)
        noise = seeded_noise(0, (), torch.device("cpu"))
        # A step asks of an oracle no more than what residuals answer.
        return Stepper(self.flow, self.scheme, oracle, noise, control)  # pyright: ignore[reportArgumentType]

    def _begun(self, group: dict, oracle: Residuals, position: Leaves) -> Carry:
        """Where the trials of a step begin, with damping and memory of the last one."""
        zero = torch.zeros((), dtype=torch.float64, device=position[0].device)
        state = State({"theta": position}, {}, zero, zero.to(torch.int64))
        carry = self._stepper(group, oracle).start(state, oracle.evaluate(position, None))
        if any(value.ndim for value in carry.memory):
            raise CompatibilityError(f"{self.rule!r} remembers directions: use it with integrate")
        memory = carry.memory
        if "memory" in group:
            values = zip(group["memory"], memory, strict=True)
            memory = tuple(torch.full_like(old, value) for value, old in values)
        step_size = torch.full_like(zero, 1.0 / float(group["damping"]))
        return replace(carry, step_size=step_size, memory=memory)

    def _tried(self, group: dict, oracle: Residuals, carry: Carry) -> Carry:
        """Trials until one is accepted."""
        stepper = self._stepper(group, oracle)
        for _ in range(self.trials):
            rejected = int(carry.rejected)
            carry = stepper.advance(carry)
            if int(carry.rejected) == rejected:
                break
        return carry


def _moves(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool((parameter.grad != 0).any())
