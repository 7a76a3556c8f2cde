"""Numbers of tensors in memory: as they are computed with, or in two bytes each.

float32 numbers become bfloat16 or float16 by rounding to the nearest, ties to even, as in torch.
"""

from collections.abc import Mapping
from typing import NamedTuple

from flowopt.kernels.native.printer import TYPES, Module
from flowopt.kernels.program import BOOL, F32, F64

F16, BF16 = "f16", "bf16"
# Half of what is cut off, less one: ties are decided by the last bit that stays.
HALF = 0x7FFF
BFLOAT_NAN = 0x7FC0


class Stored(NamedTuple):
    """How a number lies in memory.

    Attributes:
        kind: Its type there, as LLVM names it.
        suffix: Of that type in names of intrinsics.
        size: Bytes.
        dtype: Type that it is computed with.
    """

    kind: str
    suffix: str
    size: int
    dtype: str


# Whole numbers stand for bfloat16: LLVM's own conversion drops what is denormal, or calls a
# function that not every system has.
STORED: Mapping[str, Stored] = {
    F64: Stored(TYPES[F64], "f64", 8, F64),
    F32: Stored(TYPES[F32], "f32", 4, F32),
    F16: Stored("half", "f16", 2, F32),
    BF16: Stored("i16", "i16", 2, F32),
}


class Columns:
    """Prints loads and stores of vectors.

    Args:
        module: What is printed to.
        name: Key of `STORED`.
    """

    def __init__(self, module: Module, name: str):
        """See the class."""
        self.module, self.name, self.stored = module, name, STORED[name]
        self.kind, self.size = self.stored.kind, self.stored.size
        self.vector = f"<{module.width} x {self.kind}>"
        self.mask = module.type(BOOL, module.width)

    def load(self, address: str) -> str:
        """A vector."""
        return self._widened(
            self.module.let(f"load {self.vector}, ptr {address}, align {self.size}")
        )

    def store(self, address: str, value: str) -> None:
        """Writes a vector."""
        narrow = self._narrowed(value)
        self.module.put(f"store {self.vector} {narrow}, ptr {address}, align {self.size}")

    def load_some(self, address: str, mask: str) -> str:
        """Lanes of a vector where a mask is true, zeros elsewhere."""
        function = self._intrinsic("load")
        self.module.declare(f"{self.vector} @{function}(ptr, i32, {self.mask}, {self.vector})")
        return self._widened(
            self.module.let(
                f"call {self.vector} @{function}(ptr {address}, i32 {self.size}, "
                f"{self.mask} {mask}, {self.vector} zeroinitializer)"
            )
        )

    def store_some(self, address: str, value: str, mask: str) -> None:
        """Writes lanes of a vector where a mask is true."""
        function, narrow = self._intrinsic("store"), self._narrowed(value)
        self.module.declare(f"void @{function}({self.vector}, ptr, i32, {self.mask})")
        self.module.put(
            f"call void @{function}({self.vector} {narrow}, ptr {address}, i32 {self.size}, "
            f"{self.mask} {mask})"
        )

    def _intrinsic(self, what: str) -> str:
        return f"llvm.masked.{what}.v{self.module.width}{self.stored.suffix}.p0"

    def _widened(self, value: str) -> str:
        """As computed with."""
        let, wide = self.module.let, self.module.type(self.stored.dtype, self.module.width)
        if self.name == F16:
            return let(f"fpext {self.vector} {value} to {wide}")
        if self.name == BF16:
            bits = let(f"zext {self.vector} {value} to {self._whole}")
            bits = let(f"shl {self._whole} {bits}, {self._all(16)}")
            return let(f"bitcast {self._whole} {bits} to {wide}")
        return value

    def _narrowed(self, value: str) -> str:
        """As stored."""
        let, wide = self.module.let, self.module.type(self.stored.dtype, self.module.width)
        if self.name == F16:
            return let(f"fptrunc {wide} {value} to {self.vector}")
        if self.name == BF16:
            bits = let(f"bitcast {wide} {value} to {self._whole}")
            upper = let(f"lshr {self._whole} {bits}, {self._all(16)}")
            odd = let(f"and {self._whole} {upper}, {self._all(1)}")
            carry = let(f"add {self._whole} {odd}, {self._all(HALF)}")
            rounded = let(f"add {self._whole} {bits}, {carry}")
            rounded = let(f"lshr {self._whole} {rounded}, {self._all(16)}")
            nothing = let(f"fcmp uno {wide} {value}, {value}")
            chosen = let(
                f"select {self.mask} {nothing}, {self._whole} {self._all(BFLOAT_NAN)}, "
                f"{self._whole} {rounded}"
            )
            return let(f"trunc {self._whole} {chosen} to {self.vector}")
        return value

    @property
    def _whole(self) -> str:
        return f"<{self.module.width} x i32>"

    def _all(self, number: int) -> str:
        """A whole number in every lane."""
        return "<" + ", ".join([f"i32 {number}"] * self.module.width) + ">"
