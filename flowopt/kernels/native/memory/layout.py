"""Where torch keeps the parts of a tensor, found by looking at memory.

Asking torch where thousands of tensors lie takes longer than stepping them: each question runs
through code of torch's that is in no cache by then. The answers stand in memory, at places that are
the same for all tensors of one build of torch. They are found here by what has to stand there, in
tensors made for it, and are used only where each is found exactly once; memory is read through the
system, which refuses where there is none. Elsewhere torch is asked, as `tensors` does it.
"""

import os
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

MEMORY = "/proc/self/mem"
# Bytes that are looked through: of a tensor, of a storage, of what a tensor points to.
TENSOR, STORAGE, POINTED = 192, 64, 64
# Torch's numbers of types, which its files hold as well.
TYPES = {torch.float16: 5, torch.float32: 6, torch.float64: 7, torch.bfloat16: 15}
# Shapes, strides, first elements and changes of the tensors that are looked at.
SHAPES = ((3, 5, 7), (11, 13), (2, 17, 4, 3))
STRIDES = ((79, 15, 2), (31, 2), (433, 25, 6, 2))
OFFSETS, CHANGES = (19, 23, 29), (37, 41, 53)
# Elements of tensors whose memory is looked at.
SIZES = (7, 1000, 100_000)
WORD, HALF, SHORT = "Q", "I", "H"

Item = TypeVar("Item")


class Layout(NamedTuple):
    """Bytes from the begin of an object to its parts, and what two of them hold.

    Attributes:
        tensor: In an object of Python, the address of its tensor.
        storage: In a tensor, the address of its storage.
        autograd: In a tensor, the address of what autograd keeps of it, if anything.
        version: In a tensor, the address of its version, if it has one.
        dimensions: In a tensor, their number.
        sizes: In a tensor of at most five dimensions.
        strides: In a tensor of at most five dimensions.
        offset: In a tensor, elements from the begin of its storage.
        elements: In a tensor, their number.
        dtype: In a tensor, torch's number of its type, two bytes.
        keys: In a tensor, what it is to torch's dispatcher.
        data: In a storage, the address of its memory.
        release: In a storage, how its memory is given back.
        gradient: In what autograd keeps, the address of the gradient's tensor.
        count: In a version, the number, four bytes.
        plain: The keys of a tensor whose numbers stand on the CPU as they are.
        own: The `release` of memory that torch took for one tensor and copies for no other.
    """

    tensor: int
    storage: int
    autograd: int
    version: int
    dimensions: int
    sizes: int
    strides: int
    offset: int
    elements: int
    dtype: int
    keys: int
    data: int
    release: int
    gradient: int
    count: int
    plain: int
    own: int


class _NotFoundError(Exception):
    """A part stands nowhere, or in several places."""


@lru_cache(maxsize=1)
def layout() -> Layout | None:
    """Of this torch; None where it is not found."""
    try:
        with (
            open(MEMORY, "rb", buffering=0) as memory,
            torch.inference_mode(False),
            torch.device("cpu"),
        ):
            return _found(_Memory(memory.fileno()))
    except (OSError, AttributeError, RuntimeError, _NotFoundError):
        return None


class _Memory:
    """This process's memory, read safely."""

    def __init__(self, file: int):
        """See the class."""
        self._file = file

    def numbers(self, address: int, size: int, form: str) -> dict[int, int]:
        """Numbers of a form, by their distance in bytes; none where there is no memory."""
        try:
            content = os.pread(self._file, size, address)
        except (OSError, OverflowError):
            return {}
        width = struct.calcsize(f"={form}")
        whole = struct.iter_unpack(f"={form}", content[: len(content) // width * width])
        return {width * place: number for place, (number,) in enumerate(whole)}

    def places(
        self, addresses: Sequence[int], expected: Sequence[int], size: int, form: str = WORD
    ) -> list[int]:
        """Where what is expected stands behind all addresses."""
        read = [self.numbers(address, size, form) for address in addresses]
        return [
            place
            for place in read[0]
            if all(here.get(place) == e for here, e in zip(read, expected, strict=True))
        ]

    def path(self, addresses: Sequence[int], expected: Sequence[int], form: str) -> tuple[int, int]:
        """The only place in tensors of an address behind which stands what is expected, and where.

        Raises:
            _NotFoundError: There is none, or more than one.
        """
        pointers = [self.numbers(address, TENSOR, WORD) for address in addresses]
        found = []
        for first in pointers[0]:
            behind = [pointer[first] for pointer in pointers]
            found += [(first, then) for then in self.places(behind, expected, POINTED, form)]
        return _only(found)


def _only(found: Sequence[Item]) -> Item:
    if len(found) != 1:
        raise _NotFoundError
    return found[0]


def _found(memory: _Memory) -> Layout:
    samples = _samples()
    objects, tensors = list(map(id, samples)), _addresses(samples)

    def place(expected: Iterable[int]) -> int:
        return _only(memory.places(tensors, list(expected), TENSOR))

    def row(expected: Sequence[Sequence[int]]) -> int:
        first, second = (place(numbers[i] for numbers in expected) for i in (0, 1))
        if second - first != struct.calcsize(f"={WORD}"):
            raise _NotFoundError
        return first

    gradients = [sample.grad for sample in samples if sample.grad is not None]
    autograd, gradient = memory.path(tensors, _addresses(gradients), WORD)
    version, count = memory.path(tensors, [sample._version for sample in samples], HALF)
    release, own = _release(memory)
    return Layout(
        tensor=_only(memory.places(objects, tensors, Tensor.__basicsize__)),
        storage=place(_storages(samples)),
        autograd=autograd,
        version=version,
        dimensions=place(map(Tensor.dim, samples)),
        sizes=row(SHAPES),
        strides=row(STRIDES),
        offset=place(OFFSETS),
        elements=place(map(Tensor.numel, samples)),
        dtype=_dtype(memory),
        keys=_keys(memory, samples),
        data=_data(memory),
        release=release,
        gradient=gradient,
        count=count,
        plain=_keys_of(samples[0]),
        own=own,
    )


def _samples() -> list[Tensor]:
    """Parameters with a gradient, none like another."""
    samples = []
    for shape, strides, offset, changes in zip(SHAPES, STRIDES, OFFSETS, CHANGES, strict=True):
        parameter = torch.nn.Parameter(torch.zeros(2000).as_strided(shape, strides, offset))
        parameter.grad = torch.zeros_like(parameter)
        for _ in range(changes):
            increment_version([parameter])
        samples.append(parameter)
    return samples


def _addresses(tensors: Iterable[Tensor]) -> list[int]:
    return [tensor._cdata for tensor in tensors]


def _dtype(memory: _Memory) -> int:
    samples = [torch.zeros(3, dtype=dtype) for dtype in TYPES]
    return _only(memory.places(_addresses(samples), list(TYPES.values()), TENSOR, SHORT))


def _keys_of(tensor: Tensor) -> int:
    return torch._C._dispatch_keys(tensor).raw_repr()


def _keys(memory: _Memory, parameters: Sequence[Tensor]) -> int:
    """Where the keys stand, which tell plain tensors from those of other kinds."""
    numbers = torch.zeros(3, dtype=torch.complex64)
    with torch.inference_mode():
        frozen = torch.zeros(3)
    others = [numbers.conj().imag, numbers.conj(), frozen, torch.zeros(3, device="meta")]
    others.append(torch.zeros(3).to_sparse())
    plain, keys = {_keys_of(p) for p in parameters}, [_keys_of(other) for other in others]
    if len(plain) > 1 or plain & {*keys}:
        raise _NotFoundError
    samples = [*parameters, *others]
    return _only(memory.places(_addresses(samples), [*map(_keys_of, samples)], TENSOR))


def _data(memory: _Memory) -> int:
    samples = [*map(torch.zeros, SIZES), torch.frombuffer(bytearray(64), dtype=torch.uint8)]
    expected = list(map(Tensor.data_ptr, samples))
    return _only(memory.places(_storages(samples), expected, STORAGE))


def _release(memory: _Memory) -> tuple[int, int]:
    """The first word that all memory of torch's own has in common, and no other memory has."""
    plain, shared = list(map(torch.zeros, SIZES)), torch.zeros(7)
    # How many tensors share it says nothing.
    views = [plain[0][place:] for place in range(SIZES[0])]
    lent = torch.frombuffer(bytearray(64), dtype=torch.uint8)
    # Memory that is copied when one of those that share it is written.
    others = shared, torch.ops.aten._lazy_clone(shared), lent
    own, foreign = (
        [memory.numbers(storage, STORAGE, WORD) for storage in _storages(tensors)]
        for tensors in ([*plain, *views], others)
    )
    # Behind it are bytes that nobody sets, which may agree or differ by chance.
    for place, word in own[0].items():
        same = all(numbers[place] == word for numbers in own)
        if word and same and all(numbers[place] != word for numbers in foreign):
            return place, word
    raise _NotFoundError


def _storages(tensors: Iterable[Tensor]) -> list[int]:
    return [tensor.untyped_storage()._cdata for tensor in tensors]
