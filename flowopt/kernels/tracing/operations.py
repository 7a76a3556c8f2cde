"""The elementwise torch operations: one row each, torch name → its meaning on single numbers.

A row gets tensor operands as `Scalar` in the type of the computation (`Row.types`), all other
arguments of torch's schema as they are, in the order of the schema.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from flowopt.kernels.program import BOOL, FUNCTIONS, UnfitError
from flowopt.kernels.scalar import (
    Scalar,
    call,
    gelu,
    maximum,
    minimum,
    power,
    remainder,
    sigmoid,
    sign,
    softplus,
)

# What torch writes in terms of simpler operations; the rest has a row of its own.
DECOMPOSED = [
    "_softmax",
    "_softmax_backward_data",
    "_log_softmax",
    "_log_softmax_backward_data",
    "nll_loss_forward",
    "nll_loss_backward",
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_with_logits",
    "huber_loss",
    "huber_loss_backward",
    "smooth_l1_loss",
    "smooth_l1_loss_backward",
    "mse_loss",
    "mse_loss_backward",
    "soft_margin_loss",
    "native_layer_norm",
    "native_layer_norm_backward",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "mish",
    "mish_backward",
    "hardswish",
    "hardswish_backward",
    "hardsigmoid",
    "hardsigmoid_backward",
    "log_sigmoid_forward",
    "logit",
    "logsumexp",
    "linalg_vector_norm",
    "norm",
    "trace",
    "aminmax",
    "heaviside",
    "tril",
    "triu",
    "nan_to_num",
    "glu",
    "embedding_dense_backward",
    "vdot",
    "isposinf",
    "isneginf",
    "softshrink",
    "hardshrink",
]


class Row(NamedTuple):
    """How one torch operation acts on numbers.

    Attributes:
        function: Scalars and other arguments → Scalar.
        types: In which type to compute: "result" of torch's, "promoted" type of the operands,
            "own" (each operand as it is).
    """

    function: Callable
    types: str = "result"


def _scaled(combine: Callable) -> Callable:
    def function(a: Scalar, b: Scalar, alpha: float = 1) -> Scalar:
        return combine(a, b if alpha == 1 else b * alpha)

    return function


def _clamp(x: Scalar, low: Scalar | float | None = None, high: Scalar | float | None = None):
    if low is not None:
        x = maximum(x, low) if isinstance(low, Scalar) else (x < low).where(x.like(low), x)
    if high is not None:
        x = minimum(x, high) if isinstance(high, Scalar) else (x > high).where(x.like(high), x)
    return x


def _divide(a: Scalar, b: Scalar | float, rounding_mode: str | None = None) -> Scalar:
    if rounding_mode is None:
        return a / b
    if rounding_mode == "trunc" and a.floating:
        return (a / b).op("trunc")
    raise UnfitError(f"division rounded by {rounding_mode!r} has no scalar form")


def _lerp(a: Scalar, b: Scalar, weight: Scalar | float) -> Scalar:
    weight = a.like(weight)
    return (abs(weight) < 0.5).where(a + weight * (b - a), b - (b - a) * (1.0 - weight))


def _where(condition: Scalar, yes: Scalar, no: Scalar) -> Scalar:
    # Bools come as they are, since the condition is one: what is chosen takes the other's type.
    kind = no.dtype if yes.dtype == BOOL else yes.dtype
    return condition.where(yes.to(kind), no.to(kind))


def _logaddexp(a: Scalar, b: Scalar) -> Scalar:
    rest = (-abs(a - b)).op("exp").op("log1p")
    # Equal infinities have no difference.
    return (a.equals(b) & abs(a).equals(math.inf)).where(a, maximum(a, b) + rest)


def _threshold(x: Scalar, threshold: float, value: float) -> Scalar:
    return (x <= threshold).where(x.like(value), x)


def _softplus_backward(gradient: Scalar, x: Scalar, beta: float, threshold: float) -> Scalar:
    z = (x * beta).op("exp")
    return (x * beta > threshold).where(gradient, gradient * z / (z + 1.0))


def _gelu_backward(gradient: Scalar, x: Scalar, approximate: str = "none") -> Scalar:
    if approximate == "tanh":
        beta, kappa = math.sqrt(2.0 / math.pi), 0.044715
        t = (beta * (x + kappa * x * x * x)).op("tanh")
        inner = beta * (1.0 + 3.0 * kappa * x * x)
        return gradient * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)
    density = (-0.5 * x * x).op("exp") * (1.0 / math.sqrt(2.0 * math.pi))
    return gradient * (0.5 * (1.0 + (x * math.sqrt(0.5)).op("erf")) + x * density)


def _elu(x: Scalar, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Scalar:
    below = (x * input_scale).op("expm1") * (alpha * scale)
    return (x > 0).where(x * scale, below)


def _elu_backward(
    gradient: Scalar, alpha: float, scale: float, input_scale: float, is_result: bool, x: Scalar
) -> Scalar:
    if is_result:
        below = gradient * input_scale * (x + alpha * scale)
    else:
        below = gradient * input_scale * alpha * scale * (x * input_scale).op("exp")
    return (x > 0).where(gradient * scale, below)


def _silu_backward(gradient: Scalar, x: Scalar) -> Scalar:
    s = sigmoid(x)
    return gradient * s * (1.0 + x * (1.0 - s))


def _log_sigmoid_backward(gradient: Scalar, x: Scalar, buffer: object = None) -> Scalar:
    return gradient * (1.0 - sigmoid(x))


UNARY_FUNCTIONS = tuple(name for name, operands in FUNCTIONS.items() if operands == 1)

ELEMENTWISE: dict[str, Row] = {
    # + - * / and powers
    "add.Tensor": Row(_scaled(lambda a, b: a + b)),
    "add.Scalar": Row(_scaled(lambda a, b: a + b)),
    "sub.Tensor": Row(_scaled(lambda a, b: a - b)),
    "sub.Scalar": Row(_scaled(lambda a, b: a - b)),
    "rsub.Tensor": Row(lambda a, b, alpha=1: b - a * alpha),
    "rsub.Scalar": Row(lambda a, b, alpha=1: b - a * alpha),
    "mul.Tensor": Row(lambda a, b: a * b),
    "mul.Scalar": Row(lambda a, b: a * b),
    "div.Tensor": Row(_divide),
    "div.Scalar": Row(_divide),
    "div.Tensor_mode": Row(_divide),
    "neg.default": Row(lambda x: -x),
    "abs.default": Row(abs),
    "square.default": Row(lambda x: x * x),
    "reciprocal.default": Row(lambda x: 1.0 / x),
    "sqrt.default": Row(call("sqrt")),
    "rsqrt.default": Row(lambda x: 1.0 / x.op("sqrt")),
    "pow.Tensor_Scalar": Row(power),
    "pow.Tensor_Tensor": Row(power),
    "pow.Scalar": Row(lambda base, x: x.like(base).op("pow", x)),
    "fmod.Tensor": Row(call("fmod")),
    "fmod.Scalar": Row(call("fmod")),
    "remainder.Tensor": Row(remainder),
    "remainder.Scalar": Row(lambda a, b: remainder(a, a.like(b))),
    "addcmul.default": Row(lambda x, a, b, value=1: x + (a * b if value == 1 else value * a * b)),
    "addcdiv.default": Row(lambda x, a, b, value=1: x + (a / b if value == 1 else value * a / b)),
    "lerp.Scalar": Row(_lerp),
    "lerp.Tensor": Row(_lerp),
    # functions
    **{
        f"{name}.default": Row(call(name))
        for name in (*UNARY_FUNCTIONS, "floor", "ceil", "trunc", "round")
    },
    "atan2.default": Row(call("atan2")),
    "hypot.default": Row(call("hypot")),
    "sinc.default": Row(
        lambda x: x.equals(0.0).where(x.like(1.0), (math.pi * x).op("sin") / (math.pi * x))
    ),
    "logaddexp.default": Row(_logaddexp),
    "sign.default": Row(sign),
    "sgn.default": Row(sign),
    "frac.default": Row(lambda x: x - x.op("trunc")),
    "xlogy.Tensor": Row(
        lambda a, b: (a.equals(0.0) & b.equals(b)).where(a.like(0.0), a * b.op("log"))
    ),
    # comparison and choice
    "maximum.default": Row(maximum),
    "minimum.default": Row(minimum),
    "fmax.default": Row(lambda a, b: ((b < a) | b.differs(b)).where(a, b)),
    "fmin.default": Row(lambda a, b: ((a < b) | b.differs(b)).where(a, b)),
    "clamp.default": Row(_clamp),
    "clamp.Tensor": Row(_clamp),
    "clamp_min.default": Row(_clamp),
    "clamp_min.Tensor": Row(_clamp),
    "clamp_max.default": Row(lambda x, high: _clamp(x, None, high)),
    "clamp_max.Tensor": Row(minimum),
    "where.self": Row(_where, "choice"),
    "masked_fill.Scalar": Row(lambda x, mask, value: mask.where(x.like(value), x), "choice"),
    "masked_fill.Tensor": Row(lambda x, mask, value: mask.where(value, x), "choice"),
    **{
        f"{name}.{form}": Row(function, "promoted")
        for form in ("Tensor", "Scalar")
        for name, function in {
            "lt": lambda a, b: a < b,
            "le": lambda a, b: a <= b,
            "gt": lambda a, b: a > b,
            "ge": lambda a, b: a >= b,
            "eq": lambda a, b: a.equals(b),
            "ne": lambda a, b: a.differs(b),
        }.items()
    },
    "isnan.default": Row(lambda x: x.differs(x), "own"),
    "isinf.default": Row(lambda x: abs(x).equals(math.inf), "own"),
    "isfinite.default": Row(lambda x: abs(x) < math.inf, "own"),
    "signbit.default": Row(lambda x: (x < 0) | (1.0 / x < 0), "own"),
    # logic
    "logical_not.default": Row(lambda x: ~x.to("bool"), "own"),
    "logical_and.default": Row(lambda a, b: a.to("bool") & b.to("bool"), "own"),
    "logical_or.default": Row(lambda a, b: a.to("bool") | b.to("bool"), "own"),
    "logical_xor.default": Row(lambda a, b: a.to("bool") ^ b.to("bool"), "own"),
    "bitwise_not.default": Row(lambda x: ~x),
    **{
        f"bitwise_{name}.{form}": Row(function)
        for form in ("Tensor", "Scalar")
        for name, function in {
            "and": lambda a, b: a & b,
            "or": lambda a, b: a | b,
            "xor": lambda a, b: a ^ b,
        }.items()
    },
    # activations
    "relu.default": Row(lambda x: maximum(x, 0.0)),
    "sigmoid.default": Row(sigmoid),
    "silu.default": Row(lambda x: x / (1.0 + (-x).op("exp"))),
    "softplus.default": Row(lambda x, beta=1, threshold=20: softplus(x, beta, threshold)),
    "gelu.default": Row(lambda x, approximate="none": gelu(x, approximate)),
    "elu.default": Row(_elu),
    "leaky_relu.default": Row(lambda x, slope=0.01: (x > 0).where(x, x * slope)),
    "hardtanh.default": Row(lambda x, low=-1, high=1: _clamp(x, low, high)),
    "threshold.default": Row(_threshold),
    # derivatives of activations
    "tanh_backward.default": Row(lambda g, y: g * (1.0 - y * y)),
    "sigmoid_backward.default": Row(lambda g, y: g * (1.0 - y) * y),
    "silu_backward.default": Row(_silu_backward),
    "threshold_backward.default": Row(lambda g, x, limit: (x <= limit).where(g.like(0.0), g)),
    "softplus_backward.default": Row(_softplus_backward),
    "gelu_backward.default": Row(_gelu_backward),
    "elu_backward.default": Row(_elu_backward),
    "leaky_relu_backward.default": Row(lambda g, x, slope, is_result: (x > 0).where(g, g * slope)),
    "hardtanh_backward.default": Row(
        lambda g, x, low, high: ((x > low) & (x < high)).where(g, 0.0)
    ),
    "log_sigmoid_backward.default": Row(_log_sigmoid_backward),
}
