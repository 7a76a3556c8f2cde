"""Random numbers as a pure function of where they are used: Philox 4×32-10, counter based.

A number is determined by (seed, trajectory, step, substep, element), so it does not depend on batch
size, on the order of evaluation, or on how a run was interrupted. Four consecutive elements share
one call of the generator.

Reference:
    Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC11.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from flowopt.core.interfaces import Key
from flowopt.core.state import Leaves

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LOW = 0xFFFFFFFF
WORDS = 4


def philox(counter: tuple[Tensor, ...], seed: Tensor) -> tuple[Tensor, ...]:
    """Philox 4×32-10.

    Args:
        counter: Four int64 tensors that broadcast, each in [0, 2³²).
        seed: int64; its two halves are the key.

    Returns:
        Four int64 tensors in [0, 2³²).
    """
    a, b, c, d = counter
    key = [seed & LOW, (seed >> 32) & LOW]
    for _ in range(ROUNDS):
        # int64 products wrap modulo 2**64, so both halves of the unsigned product survive.
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (
            ((second >> 32) & LOW) ^ b ^ key[0],
            second & LOW,
            ((first >> 32) & LOW) ^ d ^ key[1],
            first & LOW,
        )
        key = [(word + weyl) & LOW for word, weyl in zip(key, WEYL, strict=True)]
    return a, b, c, d


def _uniforms(words: tuple[Tensor, ...]) -> list[Tensor]:
    """Words to (0, 1), the ends excluded."""
    return [(word.to(torch.float64) + 0.5) * 2.0**-32 for word in words]


def _normals(words: tuple[Tensor, ...]) -> list[Tensor]:
    """Four independent standard normals of four words, by Box and Muller."""
    u, v, w, x = _uniforms(words)
    radii = [torch.sqrt(-2.0 * torch.log(u)), torch.sqrt(-2.0 * torch.log(w))]
    angles = [2.0 * math.pi * v, 2.0 * math.pi * x]
    return [
        function(angle) * radius
        for radius, angle in zip(radii, angles, strict=True)
        for function in (torch.cos, torch.sin)
    ]


def _generate(
    kind: str, seed: Tensor, trajectory: Tensor, step: Tensor, substep: int, first: int, count: int
) -> Tensor:
    """Numbers for elements first … first + count − 1 of each trajectory, (*batch, count)."""
    blocks = torch.arange(first // WORDS, (first + count - 1) // WORDS + 1, device=step.device)
    counter = (
        blocks & LOW,
        (trajectory & LOW)[..., None],
        (step & LOW)[..., None],
        torch.full_like(blocks, substep) | ((blocks >> 32) << 16),
    )
    words = philox(torch.broadcast_tensors(*counter), seed)
    numbers = _normals(words) if kind == "normal" else _uniforms(words)
    offset = first % WORDS
    return torch.stack(numbers, -1).flatten(-2)[..., offset : offset + count].contiguous()


@torch.library.custom_op("flowopt::normal", mutates_args=())
def normal_numbers(
    seed: Tensor, trajectory: Tensor, step: Tensor, substep: int, first: int, count: int
) -> Tensor:
    """Standard normals, float64; one node in a traced graph."""
    return _generate("normal", seed, trajectory, step, substep, first, count)


@torch.library.custom_op("flowopt::uniform", mutates_args=())
def uniform_numbers(
    seed: Tensor, trajectory: Tensor, step: Tensor, substep: int, first: int, count: int
) -> Tensor:
    """Uniforms on (0, 1), float64; one node in a traced graph."""
    return _generate("uniform", seed, trajectory, step, substep, first, count)


@normal_numbers.register_fake
@uniform_numbers.register_fake
def _shape(
    seed: Tensor, trajectory: Tensor, step: Tensor, substep: int, first: int, count: int
) -> Tensor:
    return step.new_empty((*step.shape, count), dtype=torch.float64)


class PhiloxNoise(NamedTuple):
    """The noise of a run.

    Attributes:
        seed: 0-d int64 tensor.
        trajectory: Index of each trajectory, (*batch,), int64.
        offsets: Global index of the first element of each leaf; without them leaves follow one
            another from 0.
        wholes: The same of whole leaves, where this process holds a part of each: scalars of a
            block take their numbers.
        rows: How many rows of a whole leaf each is, and their distance there; None where the
            elements of leaves follow one another.
    """

    seed: Tensor
    trajectory: Tensor
    offsets: tuple[int, ...] | None = None
    wholes: tuple[int, ...] | None = None
    rows: tuple[tuple[int, int], ...] | None = None

    def normal(self, like: Leaves, key: Key) -> Leaves:
        """Independent standard normals in the shapes of `like`."""
        return self._numbers(normal_numbers, like, key)

    def uniform(self, like: Leaves, key: Key) -> Leaves:
        """Independent uniforms on (0, 1) in the shapes of `like`."""
        return self._numbers(uniform_numbers, like, key)

    def block(self, places: tuple[int, ...], position: Leaves) -> "PhiloxNoise":
        """The noise of some leaves of θ, by their places among all, as in the noise of all."""
        offsets = self.offsets
        if offsets is None:
            counts = [math.prod(leaf.shape[self.trajectory.ndim :]) for leaf in position]
            offsets = (0, *accumulate(counts))
        kept = {"offsets": offsets, "wholes": self.wholes, "rows": self.rows}
        chosen = {n: v and tuple(v[place] for place in places) for n, v in kept.items()}
        return self._replace(**chosen)

    def _numbers(self, generator, like: Leaves, key: Key) -> Leaves:
        batch = self.trajectory.ndim
        counts = [math.prod(leaf.shape[batch:]) for leaf in like]
        place = (self.seed, self.trajectory, key.step, key.substep)
        pieces: list[Tensor] = []
        alone = self.wholes is not None and len(like) == 1 and like[0].ndim == batch
        rows = () if alone else (self.rows or ())[: len(like)]
        # What lies between rows is drawn too, and left out.
        widths = [count // number for count, (number, _) in zip(counts, rows, strict=False)]
        for place_of, (width, (number, distance)) in enumerate(zip(widths, rows, strict=True)):
            counts[place_of] = width and (number - 1) * distance + width
        for first, run in _runs(self.wholes if alone else self.offsets, counts):
            pieces += generator(*place, first, sum(run)).split(run, dim=-1)
        for place_of, (width, (number, distance)) in enumerate(zip(widths, rows, strict=True)):
            if number > 1 and width:
                pieces[place_of] = pieces[place_of].unfold(-1, width, distance)
        return tuple(
            piece.reshape(leaf.shape).to(leaf) for piece, leaf in zip(pieces, like, strict=True)
        )


def _runs(offsets: tuple[int, ...] | None, counts: list[int]) -> list[tuple[int, list[int]]]:
    """First element, and lengths of the leaves, of leaves that follow one another."""
    if offsets is None:
        return [(0, counts)]
    runs: list[tuple[int, list[int]]] = []
    end = -1
    # Scalars of a block, one leaf by themselves, take the first offset.
    for first, count in zip(offsets[: len(counts)], counts, strict=True):
        if first == end:
            runs[-1][1].append(count)
        else:
            runs.append((first, [count]))
        end = first + count
    return runs


def seeded_noise(seed: int, batch: tuple[int, ...], device: torch.device) -> PhiloxNoise:
    """The noise of a batch of trajectories, numbered from 0."""
    indices = torch.arange(math.prod(batch), device=device).reshape(batch)
    return PhiloxNoise(torch.tensor(seed % 2**63, dtype=torch.int64, device=device), indices)


@contextmanager
def own_draws(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """What a user's module draws itself, as dropout does, comes from a seed and the first step.

    Torch's generators, that of the host and that of the device, are afterwards as they were.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        number = (seed + step * 0x9E3779B97F4A7C15) % 2**63
        torch.default_generator.manual_seed(number)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield
