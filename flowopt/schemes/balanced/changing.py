"""What schemes have in common that change the step of another one, by an energy of the flow."""

from flowopt.core.interfaces import FlowLike, Scheme
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.schemes.drift import DriftScheme, check_summed_scheme


class ChangingScheme(DriftScheme):
    """A step of another scheme, changed by an energy: each says how in its `step`.

    Args:
        scheme: What steps.
        energy: Name of an energy of the flow; its first by default.

    Raises:
        ConfigurationError: The scheme is none.
    """

    def __init__(self, scheme: Scheme, energy: str | None = None):
        """See the class."""
        if isinstance(scheme, type) or not hasattr(scheme, "step"):
            raise ConfigurationError(f"a scheme is such as Euler(), got {scheme!r}")
        self.scheme, self.energy = scheme, energy

    def __repr__(self) -> str:
        """As it is written."""
        inside = f"{self.scheme!r}{f', {self.energy!r}' if self.energy else ''}"
        return f"{type(self).__name__}({inside})"

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` for noise, and for flows without an energy."""
        self.scheme.check(flow)
        check_summed_scheme(self, flow)
        if flow.noisy:
            raise CompatibilityError(
                f"flow {flow.name!r} has noise, and its energies change by chance, of which "
                f"{self!r} knows nothing: use {self.scheme!r}"
            )
        if not flow.energies:
            raise CompatibilityError(
                f"flow {flow.name!r} declares no energy, which {self!r} needs: give it one, as in "
                "'energy loss: L'"
            )

    def _name(self, flow: FlowLike) -> str:
        return self.energy or flow.energies[0]
