"""Momentum by an exact balance of energy, in closed form."""

from dataclasses import replace

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation, Evaluator
from flowopt.core.interfaces import FlowLike, Noise, Proposal
from flowopt.core.state import Leaves, State, lift
from flowopt.errors import CompatibilityError
from flowopt.schemes.drift import DriftScheme

VARIANTS = ("mean", "author")
# Square of a momentum below which the author's form begins anew.
AT_REST = 1e-12


class EnergyMidpoint(DriftScheme):
    """Momentum whose mean over a step is as long as the balance of energy asks.

    With the gradient at the start, the midpoint rule for the momentum q gives a mean w. θ⁺ moves
    by it, and q⁺ = 2s·w − q, where s is the larger solution, near 1, of

        E(θ⁺, q⁺) − E(θ, q) = h·Ė(θ, s·w),

    a quadratic equation whose coefficients follow from the energy at s = −1, 0 and 1. It takes a
    loss besides the gradient. In the author's form, LC_EM, s is the solution larger in size, and θ⁺
    moves by q instead of w, so that nothing would ever leave rest: where |q|² < 1e-12, q is first
    set to where its drift vanishes, and that step is not balanced.

    Where the equation has no real solution, a control that rejects tries a shorter step, and
    without one the trajectory has diverged. `flowopt.control.Solved` is made for it.

    Args:
        variant: "mean", or "author".

    Raises:
        CompatibilityError: There is no such variant.

    Reference:
        Bensaid, Poëtte & Turpault 2023, J. Sci. Comput., doi 10.1007/s10915-023-02215-4.
    """

    solves = True

    def __init__(self, variant: str = "mean"):
        """See the class."""
        if variant not in VARIANTS:
            raise CompatibilityError(
                f"no variant {variant!r} of the energy midpoint: known are {list(VARIANTS)}"
            )
        self.variant = variant

    def __repr__(self) -> str:
        """As it is written."""
        return f"EnergyMidpoint({self.variant!r})"

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` unless the flow has θ, one momentum, and an energy of it."""
        super().check(flow)
        momenta = flow.energy(flow.energies[0]).momenta if flow.energies else ()
        if len(momenta) != 1 or flow.variables[1:] != momenta or flow.scalars:
            raise CompatibilityError(
                f"{self!r} needs a flow of theta and one momentum, whose first energy is quadratic "
                f"in it, as heavy_ball(), unlike flow {flow.name!r}: use Projected(Euler())"
            )

    def closure_free(self, flow: FlowLike) -> bool:
        """The loss is taken away from the start."""
        return False

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluator, noise: Noise
    ) -> Proposal:
        """θ by the mean momentum, the momentum by the balance of energy."""
        energy, name = flow.energy(flow.energies[0]), flow.variables[1]
        evaluation, momentum = evaluate(state), state.variables[name]
        resting = torch.zeros_like(state.time, dtype=torch.bool)
        mean, final = _midpoint(flow, state, step_size, evaluation)
        if self.variant == "author":
            resting = state.squared_norm(momentum) < AT_REST
            mask = [resting.reshape(resting.shape + (1,) * (q.ndim - resting.ndim)) for q in final]
            momentum = tuple(map(torch.where, mask, final, momentum))
        moving = state.updated({name: mean if self.variant == "mean" else momentum})
        velocity = flow.drift(moving, evaluation).position
        steps = zip(state.position, velocity, strict=True)
        ahead = state.with_position(tuple(x + lift(step_size, x) * v for x, v in steps))
        ahead = replace(ahead, time=state.time + step_size)

        def excess(share: float, end: Evaluation) -> Tensor:
            """What is gained beyond the balance, quadratic in the share of the mean."""
            scaled = tuple(share * w for w in mean)
            after = tuple(2.0 * w - q for w, q in zip(scaled, momentum, strict=True))
            rate = energy.rate(state.updated({name: scaled}), evaluation)
            return energy.value(ahead.updated({name: after}), end) - step_size * rate

        loss = evaluate.loss(ahead)
        # Without the loss, beside which the energy of a slow momentum is lost in rounding.
        alone = replace(loss, loss=torch.zeros_like(loss.loss))
        none, forth, back = (excess(share, alone) for share in (0.0, 1.0, -1.0))
        constant = excess(0.0, loss) - energy.value(state, evaluation)
        a, b = 0.5 * (forth + back) - none, 0.5 * (forth - back)
        share, real = _larger_root(a, b, constant, in_size=self.variant == "author")
        share = torch.where(real, share, 1.0)
        after = (2.0 * lift(share, w) * w - q for w, q in zip(mean, momentum, strict=True))
        if self.variant == "author":
            after = map(torch.where, mask, momentum, after)
        return Proposal(ahead.updated({name: tuple(after)}), solved=real | resting)


def _midpoint(
    flow: FlowLike, state: State, step_size: Tensor, evaluation: Evaluation
) -> tuple[Leaves, Leaves]:
    """Mean momentum of the midpoint rule, and the momentum at which its drift vanishes."""
    name = flow.variables[1]

    def drift(value: float) -> Leaves:
        momentum = tuple(torch.full_like(leaf, value) for leaf in state.variables[name])
        return flow.drift(state.updated({name: momentum}), evaluation).variables[name]

    mean, final = [], []
    for leaf, still, moved in zip(state.variables[name], drift(0.0), drift(1.0), strict=True):
        half, rate = 0.5 * lift(step_size, leaf), moved - still
        mean.append((leaf + half * still) / (1.0 - half * rate))
        final.append(-still / rate)
    return tuple(mean), tuple(final)


def _larger_root(a: Tensor, b: Tensor, c: Tensor, *, in_size: bool) -> tuple[Tensor, Tensor]:
    """The larger root of ax² + bx + c with a > 0, or that larger in size; whether there is one."""
    discriminant = b * b - 4.0 * a * c
    nothing = (a == 0.0) & (c == 0.0)
    root = torch.sqrt(torch.clamp(discriminant, min=0.0))
    # Without a difference of equal numbers.
    ahead = b <= 0.0
    far = 0.5 * torch.where(ahead, root - b, -root - b)
    larger = far / a if in_size else torch.where(ahead, far / a, c / far)
    real = (discriminant >= 0.0) & (larger - larger == 0.0)
    return torch.where(nothing, 1.0, larger), real | nothing
