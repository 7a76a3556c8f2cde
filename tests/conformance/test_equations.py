"""Drifts of the registered flows against their published equations, typed once more."""

import pytest
import torch
from torch import sqrt

from flowopt.registry import FLOWS
from tests.reference.states import HILLS, evaluation_of, state_of

# Variables and hyperparameters by name → rate of change of each variable.
EQUATIONS = {
    "gradient_flow": lambda g: {"theta": -g},
    "heavy_ball": lambda g, p, friction: {"theta": p, "p": -g - friction * p},
    "langevin": lambda g, p, friction: {"theta": p, "p": -g - friction * p},
    "momentum_ema": lambda g, m, rate: {"theta": -m, "m": rate * (g - m)},
    "nesterov": lambda g, p, friction, lookahead: {
        "theta": p - lookahead * g,
        "p": -g - friction * p,
    },
    "nesterov_ema": lambda g, m, rate, memory: {
        "theta": -memory * m - (1 - memory) * g,
        "m": rate * (g - m),
    },
    "rmsprop": lambda g, v, square_rate, eps: {
        "theta": -g / (sqrt(v) + eps),
        "v": square_rate * (g * g - v),
    },
    "adagrad": lambda g, v, accumulation, eps: {
        "theta": -g / (sqrt(v) + eps),
        "v": accumulation * g * g,
    },
    "adam": lambda g, m, v, u_m, u_v, momentum_rate, square_rate, eps: {
        "theta": -(m / u_m) / (sqrt(v / u_v) + eps),
        "m": momentum_rate * (g - m),
        "v": square_rate * (g * g - v),
        "u_m": momentum_rate * (1 - u_m),
        "u_v": square_rate * (1 - u_v),
    },
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_drift_of_a_flow_is_its_published_equation(name):
    flow = FLOWS[name].build()
    generator = torch.Generator().manual_seed(0)

    def positive(*shape):
        return 0.1 + torch.rand(*shape, generator=generator, dtype=torch.float64)

    variables = {v.name: positive(6, 2) for v in flow.equations.variables}
    scalars = {s.name: positive(6) for s in flow.equations.scalars}
    state = state_of(variables, **scalars)
    evaluation = evaluation_of(HILLS, state.position)
    found = flow.drift(state, evaluation)

    equation = EQUATIONS[name]
    known = {**flow.hyperparameters, **{n: s[:, None] for n, s in scalars.items()}, **variables}
    known["g"] = torch.stack(evaluation.gradient, -1)
    names = equation.__code__.co_varnames[: equation.__code__.co_argcount]
    expected = equation(**{name: known[name] for name in names})
    assert set(expected) == {*found.variables, *found.scalars}
    for name_, rate in expected.items():
        if name_ in found.scalars:
            drift = found.scalars[name_][:, None]
        else:
            drift = torch.stack(found.variables[name_], -1)
        torch.testing.assert_close(drift, rate, rtol=1e-14, atol=1e-15)
