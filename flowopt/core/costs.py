"""What evaluations cost, in forward passes: the only place where they are weighed."""

from collections.abc import Mapping
from typing import TypeVar, cast

from torch import Tensor

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

FORWARD_PASSES = {"losses": LOSS, "gradients": GRADIENT, "products": PRODUCT}


def forward_passes(counts: Mapping[str, Count]) -> Count:
    """What counted evaluations cost, in forward passes: losses + 3·gradients + 2·products.

    A backward pass costs twice what it goes through: of a gradient, the loss. A product is one with
    the Jacobian of outputs or residuals, or with its transpose; one with the Hessian, which goes
    back through loss and gradient, counts as three.

    Args:
        counts: "losses", "gradients" and "products", any of them, as in `solution.counts` or
            `optimizer.counts`: whole numbers or tensors. Others, as "rejected", cost nothing.

    Returns:
        A number, or a tensor like those given.

    Reference:
        Griewank & Walther 2008, Evaluating Derivatives, sections 3.3 and 4.6, for the factors.
    """
    weighed = [FORWARD_PASSES[n] * c for n, c in counts.items() if n in FORWARD_PASSES]
    return cast(Count, sum(weighed))
