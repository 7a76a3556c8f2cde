"""Philox 4×32-10 on single numbers, as `core.noise` does it on tensors."""

import math

import numpy as np
import torch
from torch import Tensor

from flowopt.core.noise import LOW, MULTIPLIERS, ROUNDS, WEYL, WORDS
from flowopt.kernels.scalar import Scalar
from flowopt.kernels.tracing.arrays import Array


def philox(counter: list[Scalar], seed: Scalar) -> list[Scalar]:
    """Four words of four counters and a seed."""
    a, b, c, d = counter
    key = [seed & LOW, seed.op("shr", 32) & LOW]
    for _ in range(ROUNDS):
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (
            (second.op("shr", 32) & LOW) ^ b ^ key[0],
            second & LOW,
            (first.op("shr", 32) & LOW) ^ d ^ key[1],
            first & LOW,
        )
        key = [(word + weyl) & LOW for word, weyl in zip(key, WEYL, strict=True)]
    return [a, b, c, d]


def _numbers(kind: str, words: list[Scalar]) -> list[Scalar]:
    u, v, w, x = ((word.to("f64") + 0.5) * 2.0**-32 for word in words)
    if kind == "uniform":
        return [u, v, w, x]
    results = []
    for radius, angle in ((u, v), (w, x)):
        length = (-2.0 * radius.op("log")).op("sqrt")
        turned = 2.0 * math.pi * angle
        results += [turned.op("cos") * length, turned.op("sin") * length]
    return results


def random_array(
    kind: str,
    seed: Array,
    trajectory: Array,
    step: Array,
    substep: int,
    first: int,
    count: int,
) -> Array:
    """Numbers for elements first … first + count − 1 of each trajectory, (*batch, count)."""
    (key,) = seed.scalars()
    shape = np.broadcast_shapes(trajectory.shape, step.shape)
    steps = np.broadcast_to(step.ids, shape).ravel()
    indices = np.broadcast_to(trajectory.ids, shape).ravel()
    program = seed.program
    numbers: list[int] = []
    for index, number in zip(indices, steps, strict=True):
        row: list[Scalar] = []
        lane, place = Scalar(program, int(index)) & LOW, Scalar(program, int(number)) & LOW
        for block in range(first // WORDS, (first + count - 1) // WORDS + 1):
            low = lane.like(block & LOW)
            high = lane.like(substep | (block >> 32) << 16)
            row += _numbers(kind, philox([low, lane, place, high], key))
        offset = first % WORDS
        for element, value in enumerate(row[offset : offset + count], start=first):
            numbers.append(value.index)
            program.notes[value.index] = f"{kind}(substep {substep}, element {element})"
    ids = np.array(numbers, dtype=np.int64).reshape((*shape, count))
    return Array(program, ids, torch.float64)


@torch.library.custom_op("flowopt::normal_at", mutates_args=())
def normal_at(seed: Tensor, trajectory: Tensor, step: Tensor, substep: int, at: Tensor) -> Tensor:
    """Standard normals of elements by their index; only to be traced."""
    raise RuntimeError("this operation is traced, never run")


@torch.library.custom_op("flowopt::uniform_at", mutates_args=())
def uniform_at(seed: Tensor, trajectory: Tensor, step: Tensor, substep: int, at: Tensor) -> Tensor:
    """Uniforms on (0, 1) of elements by their index; only to be traced."""
    raise RuntimeError("this operation is traced, never run")


@normal_at.register_fake
@uniform_at.register_fake
def _shape(seed: Tensor, trajectory: Tensor, step: Tensor, substep: int, at: Tensor) -> Tensor:
    return at.new_empty(at.shape, dtype=torch.float64)


def random_at(
    kind: str, seed: Array, trajectory: Array, step: Array, substep: int, at: Array
) -> Array:
    """The number of one element whose index is known when the kernel runs."""
    ((key,), (lane,), (place,), (element,)) = (
        array.scalars() for array in (seed, trajectory, step, at)
    )
    number = random_element(kind, key, lane, place, substep, element)
    ids = np.full(at.shape, number.index, dtype=np.int64)
    return Array(seed.program, ids, torch.float64)


def random_element(
    kind: str, seed: Scalar, lane: Scalar, step: Scalar, substep: int, element: Scalar
) -> Scalar:
    """The number of one element by its index."""
    block = element.op("shr", WORDS.bit_length() - 1)
    high = block.op("shr", 32).op("shl", 16) | substep
    words = philox([block & LOW, lane & LOW, step & LOW, high], seed)
    within = element & (WORDS - 1)
    second, odd = within > 1, (within & 1).equals(1)
    # All four numbers, each of which depends on the block alone: kernels may compute them once.
    a, b, c, d = _numbers(kind, words)
    return second.where(odd.where(d, c), odd.where(b, a))
