"""The normals that printed code asks for."""

from torch import Tensor

from flowopt.core.interfaces import Increment, Key, Noise
from flowopt.core.state import Leaves, State
from flowopt.flows.equations.code import Code


def draw_normals(
    code: Code,
    state: State,
    step_size: Tensor,
    noise: Noise,
    place: int,
    share: tuple[float, float],
) -> list[Leaves]:
    """The normals of a code, each channel drawn once.

    Args:
        code: What asks for them.
        state: At the start of the step.
        step_size: Of the whole step, (*batch,), float64.
        noise: Source of normals.
        place: Substep of the first channel.
        share: Where in the step the increments begin and end.
    """
    drawn: dict[int, Leaves] = {}
    for _, variable, channel, wiener in code.normals:
        if channel not in drawn:
            like = state.variables.get(variable) or (state.scalars[variable],)
            increment = Increment(wiener, state.time, step_size, share)
            drawn[channel] = noise.normal(like, Key(state.step, place + channel, increment))
    return [drawn[normal.channel] for normal in code.normals]
