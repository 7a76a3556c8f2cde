"""What evaluations cost, in forward passes: the only place where they are weighed."""

from collections.abc import Mapping
from typing import TypeVar, cast

from torch import Tensor

from flowopt.errors import ConfigurationError

Count = TypeVar("Count", int, Tensor)

LOSS = 1
# Where a forward pass multiplies by a layer's matrix once, a backward pass does so twice: for the
# derivatives by the layer's input and by its weights. So do tangents, by weights and by inputs.
BACKWARD = 2
GRADIENT = LOSS + BACKWARD * LOSS
# Of outputs that are there, with J or Jᵀ.
PRODUCT = BACKWARD * LOSS
# Products as which one with the Hessian counts: it goes back through loss and gradient.
HESSIAN_PRODUCTS = BACKWARD * GRADIENT // PRODUCT

# What was evaluated for a rejected step is among the others.
FORWARD_PASSES = {"losses": LOSS, "gradients": GRADIENT, "products": PRODUCT, "rejected": 0}


def forward_passes(counts: Mapping[str, Count]) -> Count:
    """What counted evaluations cost, in forward passes: losses + 3·gradients + 2·products.

    A backward pass costs twice what it goes through: of a gradient, the loss. A product is one with
    the Jacobian of outputs or residuals, or with its transpose; one with the Hessian, which goes
    back through loss and gradient, counts as three.

    Args:
        counts: "losses", "gradients", "products" and "rejected", any of them, as in
            `solution.counts` or `optimizer.counts`: whole numbers or tensors. What was evaluated
            for a rejected step is among the others, so that "rejected" itself costs nothing.

    Returns:
        A number, or a tensor like those given.

    Raises:
        ConfigurationError: Something else is counted.

    Reference:
        Griewank & Walther 2008, Evaluating Derivatives, sections 3.3 and 4.6, for the factors.
    """
    if unknown := [name for name in counts if name not in FORWARD_PASSES]:
        raise ConfigurationError(f"no costs of {unknown} are known: give {list(FORWARD_PASSES)}")
    return cast(Count, sum(FORWARD_PASSES[name] * count for name, count in counts.items()))
