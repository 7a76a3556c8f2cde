"""Optimizers with temperature: Langevin dynamics, its thermostat, and layers that differ."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from flowopt.classic.checks import check_not_negative
from flowopt.core.interfaces import Scheme
from flowopt.errors import ConfigurationError
from flowopt.flows import EquationFlow, adaptive_langevin, langevin
from flowopt.optim.blocks.equation import FLOW, LETTERS
from flowopt.optim.flow_optimizer import FlowOptimizer
from flowopt.schemes import Splitting

# One gradient per step, that at its start.
WORD = "BAOA"
# AdLaLa's order: what O means to its thermostatted layers.
THERMOSTAT = "CDEDC"
# A leapfrog step as long as the oscillation that it follows.
STABLE = 2.0


class Thermal(FlowOptimizer):
    """An optimizer none of whose values is negative, in any group at any step."""

    def _plan(self, place: int) -> tuple[EquationFlow, Scheme, Tensor]:
        group, names = self.param_groups[place], self._equations[place].flow.hyperparameters
        check_not_negative(**{name: group[name] for name in names})
        return super()._plan(place)

    def _check_group(self, place: int) -> None:
        self._plan(place)
        super()._check_group(place)


class Langevin(Thermal):
    """Langevin dynamics, dθ = p dt, dp = −∇L dt − γp dt + √(2γT) dW, under BAOA.

    Without temperature, SGD with momentum exp(−γ lr) and learning rate lr²(1 + exp(−γ lr))/2.

    Args:
        params: Parameters, named parameters or groups.
        lr: Step size h, time per step.
        temperature: T, in units of the loss as given: for a mean loss over N data, 1/N samples the
            posterior.
        friction: γ, 1/time.
        maximize: Whether to climb.
        seed: Of the noise; None takes `torch.initial_seed()`.
        foreach: As for `FlowOptimizer`.
        error_if_nonfinite: As for `FlowOptimizer`.
        compile: Whether to step all tensors of a group by one native kernel.

    Raises:
        ConfigurationError: A value is negative.

    Reference:
        Leimkuhler & Matthews 2013, Appl. Math. Res. Express 2013(1), 34.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 0.25,
        *,
        temperature: float = 1e-4,
        friction: float = 0.1,
        maximize: bool = False,
        seed: int | None = None,
        foreach: bool | None = None,
        error_if_nonfinite: bool = False,
        compile: bool = False,
    ):
        """See the class."""
        check_not_negative(temperature=temperature, friction=friction)
        super().__init__(
            params,
            langevin(friction=friction, temperature=temperature),
            Splitting(WORD),
            lr,
            maximize=maximize,
            seed=seed,
            foreach=foreach,
            error_if_nonfinite=error_if_nonfinite,
            compile=compile,
        )


class AdaptiveLangevin(Thermal):
    """Langevin dynamics whose friction ξ moves until the momentum has its temperature.

    dθ = p dt, dp = (−∇L − ξp) dt + σ dW, dξ = ε(|p|² − N·T) dt under BAEOEA, where friction and
    noise are solved exactly together; one ξ for each group of N elements. It takes up noise of
    constant covariance that the gradients of minibatches have.

    Args:
        params: Parameters, named parameters or groups.
        lr: Step size h, time per step.
        temperature: T, in units of the loss as given.
        driving_noise: σ of the momentum's own noise.
        coupling: ε of the thermostat; lower it as 1/N for large groups.
        initial_friction: ξ at the start.
        maximize: Whether to climb.
        seed: Of the noise; None takes `torch.initial_seed()`.
        foreach: As for `FlowOptimizer`.
        error_if_nonfinite: As for `FlowOptimizer`.
        compile: Whether to step all tensors of a group by native kernels: one for each time that
            the thermostat looks at all elements, and one that steps.

    Raises:
        ConfigurationError: A value is negative, or the thermostat is too fast for the step size.

    Reference:
        Leimkuhler & Shang 2016, SIAM J. Sci. Comput. 38(2), A712: BADODAB.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 0.25,
        *,
        temperature: float = 1e-4,
        driving_noise: float = 0.01,
        coupling: float = 0.05,
        initial_friction: float = 0.1,
        maximize: bool = False,
        seed: int | None = None,
        foreach: bool | None = None,
        error_if_nonfinite: bool = False,
        compile: bool = False,
    ):
        """See the class."""
        values = {
            "temperature": temperature,
            "driving_noise": driving_noise,
            "coupling": coupling,
        }
        check_not_negative(**values)
        self._initial_friction = initial_friction
        super().__init__(
            params,
            adaptive_langevin(**values),
            Splitting("BAE(CD)EA"),
            lr,
            maximize=maximize,
            seed=seed,
            foreach=foreach,
            error_if_nonfinite=error_if_nonfinite,
            compile=compile,
        )

    def _start(self, params: Iterable, defaults: dict, foreach: object, compile: object) -> None:
        super()._start(params, {**defaults, "xi": self._initial_friction}, foreach, compile)

    def _check_group(self, place: int) -> None:
        super()._check_group(place)
        _check_frequency(self.param_groups[place])


class AdLaLa(Thermal):
    """Adaptive Langevin dynamics for the first group, Langevin dynamics for the others.

    The first group steps BACDEDCA, the others BAOA, with one gradient. Values of the first are its
    own: a group may have `lr`, `temperature`, `driving_noise`, `coupling` and `xi`, others `lr`,
    `temperature` and `friction`.

        AdLaLa([{"params": first.parameters()}, {"params": rest.parameters(), "friction": 0.5}])

    Args:
        params: At least two groups.
        lr: Step size h, time per step.
        temperature: T of all groups, in units of the loss as given.
        friction: γ of the groups but the first, 1/time.
        driving_noise: σ of the first group's own noise.
        coupling: ε of its thermostat; lower it as 1/N for large groups.
        initial_friction: ξ at the start.
        maximize: Whether to climb.
        seed: Of the noise; None takes `torch.initial_seed()`.
        foreach: As for `FlowOptimizer`.
        error_if_nonfinite: As for `FlowOptimizer`.
        compile: Whether to step all tensors of a group by native kernels: one for each time that
            the thermostat looks at all elements, and one that steps.

    Raises:
        ConfigurationError: A value is negative, there is one group, or the thermostat can not hold
            its temperature: h σ² ≥ 2T, or too fast for the step size.

    Reference:
        Leimkuhler, Matthews & Vlaar 2019, Found. Data Sci. 1(4), 457, equation 15.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 0.25,
        *,
        temperature: float = 1e-4,
        friction: float = 0.1,
        driving_noise: float = 0.01,
        coupling: float = 0.05,
        initial_friction: float = 0.1,
        maximize: bool = False,
        seed: int | None = None,
        foreach: bool | None = None,
        error_if_nonfinite: bool = False,
        compile: bool = False,
    ):
        """See the class."""
        values = {
            "temperature": temperature,
            "driving_noise": driving_noise,
            "coupling": coupling,
        }
        check_not_negative(friction=friction, **values)
        first, *others = _groups(params, type(self).__name__)
        thermostat = {FLOW: adaptive_langevin(**values), LETTERS: {"O": THERMOSTAT}}
        super().__init__(
            [{**thermostat, "xi": initial_friction, **first}, *others],
            langevin(friction=friction, temperature=temperature),
            Splitting(WORD),
            lr,
            maximize=maximize,
            seed=seed,
            foreach=foreach,
            error_if_nonfinite=error_if_nonfinite,
            compile=compile,
        )
        group = self.param_groups[0]
        _check_feasible(group)
        _check_frequency(group)


class LOL(Thermal):
    """Langevin dynamics for the first group; the others draw their momentum anew at every step.

    The others have infinite friction, which makes Leimkuhler and Matthews' overdamped step of
    length lr²/2. All step BAOA, with one gradient; a group may have `lr`, `temperature` and
    `friction`.

    Args:
        params: At least two groups.
        lr: Step size h, time per step.
        temperature: T of all groups, in units of the loss as given.
        friction: γ of the first group, 1/time.
        maximize: Whether to climb.
        seed: Of the noise; None takes `torch.initial_seed()`.
        foreach: As for `FlowOptimizer`.
        error_if_nonfinite: As for `FlowOptimizer`.
        compile: Whether to step all tensors of a group by one native kernel.

    Raises:
        ConfigurationError: A value is negative, or there is one group.

    Reference:
        Leimkuhler, Matthews & Vlaar 2019, Found. Data Sci. 1(4), 457.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float | Tensor = 0.25,
        *,
        temperature: float = 1e-4,
        friction: float = 0.1,
        maximize: bool = False,
        seed: int | None = None,
        foreach: bool | None = None,
        error_if_nonfinite: bool = False,
        compile: bool = False,
    ):
        """See the class."""
        check_not_negative(temperature=temperature, friction=friction)
        first, *others = _groups(params, type(self).__name__)
        super().__init__(
            [{"friction": friction, **first}, *others],
            langevin(friction=float("inf"), temperature=temperature),
            Splitting(WORD),
            lr,
            maximize=maximize,
            seed=seed,
            foreach=foreach,
            error_if_nonfinite=error_if_nonfinite,
            compile=compile,
        )


def _groups(params: Iterable, name: str) -> list[dict[str, Any]]:
    groups = list(params)
    if len(groups) < 2 or not all(isinstance(group, dict) for group in groups):
        raise ConfigurationError(
            f"{name} has one equation for the first group and another for the others, and came "
            f"with {'one group' if len(groups) == 1 else 'no groups'}: give "
            "[{'params': first.parameters()}, {'params': rest.parameters()}]"
        )
    return groups


def _check_feasible(group: dict[str, Any]) -> None:
    """Raises `ConfigurationError` where the kicks of a step alone exceed the temperature."""
    lr, noise, temperature = (float(group[n]) for n in ("lr", "driving_noise", "temperature"))
    kick = lr * noise**2
    if kick > 0 and kick >= 2 * temperature:
        raise ConfigurationError(
            f"lr·driving_noise² = {kick:.3g} reaches 2·temperature = "
            f"{2 * temperature:.3g}: the kicks of a step alone are hotter than the temperature, "
            "and the friction would grow without bound; lower driving_noise or lr, or raise "
            "temperature"
        )


def _check_frequency(group: dict[str, Any]) -> None:
    """Raises `ConfigurationError` where the thermostat oscillates faster than steps follow."""
    lr, coupling, temperature = (float(group[n]) for n in ("lr", "coupling", "temperature"))
    elements = sum(parameter.numel() for parameter in group["params"])
    frequency = (2 * coupling * elements * temperature) ** 0.5
    if lr * frequency >= STABLE:
        raise ConfigurationError(
            f"the thermostat of {elements} elements oscillates with frequency {frequency:.3g}, and "
            f"lr = {lr:g} is too long for it (their product is below {STABLE:g}): lower coupling, "
            "as one over the number of elements"
        )
