"""What kind of noise a flow has."""

from functools import lru_cache
from typing import Literal, get_args

import sympy

from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, Equations, Term, g, theta

NoiseKind = Literal["none", "additive", "undriven", "driven"]
# From nothing to what a scheme can do least with.
NOISE_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)


@lru_cache(maxsize=128)
def noise_kind(equations: Equations) -> NoiseKind:
    """The kind of noise.

    *none*      no term has noise;
    *additive*  amplitudes depend on hyperparameters and time only;
    *undriven*  amplitudes depend on variables, but not on what the same noise drives;
    *driven*    they do, Σⱼ σⱼₖ ∂ⱼσᵢₖ ≠ 0, so that Itô's and Stratonovich's readings differ.
    """
    noisy = [term for term in equations.terms if term.diffusion]
    if not noisy:
        return "none"
    if any(_readings_differ(term) for term in noisy):
        return "driven"
    state = {*equations.variables, *equations.scalars, g, LOSS}
    if any(a.free_symbols & state for term in noisy for a in term.diffusion.values()):
        return "undriven"
    return "additive"


def _readings_differ(term: Term) -> bool:
    """Whether Σⱼ σⱼₖ ∂ⱼσᵢₖ is not zero for some variable i and Wiener process k."""
    amplitudes = {v: term.amplitudes(v) for v in term.diffusion}
    for own in amplitudes.values():
        for wiener, amplitude in own.items():
            # A sum over elements changes with each element as that element's share does.
            bare = amplitude.replace(lambda e: isinstance(e, total), lambda e: e.args[0])
            correction = sympy.S.Zero
            for driven, others in amplitudes.items():
                slope = bare.diff(driven)
                if driven == theta:
                    # How ∇L changes with θ is anybody's guess.
                    slope += bare.diff(g) * sympy.Dummy() + bare.diff(LOSS) * g
                correction += others.get(wiener, sympy.S.Zero) * slope
            if sympy.simplify(correction) != 0:
                return True
    return False
