"""Schemes on the sums of drifts and noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowopt.core.interfaces import Evaluate, FlowLike, Key, Noise, Proposal
from flowopt.core.state import Leaves, State
from flowopt.errors import CompatibilityError
from flowopt.schemes.drift import DriftScheme, check_summed_scheme


class EulerMaruyama(DriftScheme):
    """Euler–Maruyama, z + h·drift(z) + √h·σ(z)ξ: weak order 1, one gradient per step.

    Reference:
        Maruyama 1955, Rend. Circ. Mat. Palermo 4, 48; Kloeden & Platen 1992, Numerical Solution of
        Stochastic Differential Equations, section 14.1.
    """

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` without noise, or where the noise depends on itself."""
        if not flow.noisy:
            raise CompatibilityError(f"flow {flow.name!r} has no noise: use Euler()")
        check_summed_scheme(self, flow)

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> Proposal:
        """One step along the drift, and a kick."""
        drift = flow.drift(state, evaluate(state))
        kick = flow.kick(state, step_size, evaluate, noise)
        return Proposal(state.plus([(step_size, drift), (torch.ones_like(step_size), kick)]))


class LeimkuhlerMatthews(DriftScheme):
    """Leimkuhler and Matthews' method, θ + h·drift(θ) + √h·σ(ξₙ + ξₙ₊₁)/2, one gradient per step.

    For overdamped flows with additive noise. Steps share their normals with the next, so averages
    at a fixed time have order 1, and equilibrium averages order 2; of a quadratic they are exact.

    Reference:
        Leimkuhler & Matthews 2013, Appl. Math. Res. Express 2013(1), 34; Leimkuhler, Matthews &
        Tretyakov 2014, Proc. R. Soc. A 470, 20140120.
    """

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` unless additive noise drives θ and nothing else moves."""
        alone = flow.variables == ("theta",) and not flow.scalars
        if not alone or flow.noise_kind != "additive":
            raise CompatibilityError(
                f"{self!r} steps overdamped flows, theta alone with additive noise, and flow "
                f"{flow.name!r} has variables {[*flow.variables, *flow.scalars]} and "
                f"{flow.noise_kind} noise: use EulerMaruyama() or a splitting word such as 'BAOAB'"
            )
        check_summed_scheme(self, flow)

    def order(self, flow: FlowLike) -> float:
        """Weak order 1 at a fixed time; equilibrium averages have order 2."""
        return 1.0

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> Proposal:
        """One step along the drift, and the mean of this step's kick and the next's."""
        drift = flow.drift(state, evaluate(state))
        kick = flow.kick(state, step_size, evaluate, _WithNext(noise))
        return Proposal(state.plus([(step_size, drift), (torch.ones_like(step_size), kick)]))


@dataclass(frozen=True)
class _WithNext:
    """Normals averaged with those of the next step, which finds them again by their key."""

    noise: Noise

    def normal(self, like: Leaves, key: Key) -> Leaves:
        """Means of two standard normals."""
        now, next_key = self.noise.normal(like, key), key._replace(step=key.step + 1)
        if key.increment is not None:
            time = key.increment.time + key.increment.step_size
            next_key = next_key._replace(increment=key.increment._replace(time=time))
        following = self.noise.normal(like, next_key)
        return tuple((own + after) / 2 for own, after in zip(now, following, strict=True))

    def uniform(self, like: Leaves, key: Key) -> Leaves:
        """Uniforms of this step alone, of which a kick draws none."""
        return self.noise.uniform(like, key)

    def block(self, places: tuple[int, ...], position: Leaves) -> "_WithNext":
        """The same of the noise of some leaves of θ."""
        return _WithNext(self.noise.block(places, position))
