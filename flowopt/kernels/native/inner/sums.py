"""Sums over the elements of chunks: one in double precision per lane, joined where a chunk ends.

Chunks of a sum do not depend on threads, and neither does it.
"""

from flowopt.kernels.native.printer import Module
from flowopt.kernels.program import BOOL, F64


class Sums:
    """Prints sums, which go to (sum, chunk), float64.

    Args:
        module: What is printed to.
        count: How many.
    """

    def __init__(self, module: Module, count: int):
        """See the class."""
        self.module, self.count = module, count
        self.vector = module.type(F64, module.width)

    def begin(self, results: str) -> None:
        """Makes room for them, in the first block of the function.

        Args:
            results: Address of the results, i64.
        """
        if self.count:
            self.module.put(f"%sums = inttoptr i64 {results} to ptr")
        for number in range(self.count):
            self.module.put(f"%sum{number} = alloca {self.vector}")

    def clear(self) -> None:
        """Begins a chunk."""
        for number in range(self.count):
            self.module.put(f"store {self.vector} zeroinitializer, ptr %sum{number}")

    def add(self, number: int, value: str, mask: str | None = None) -> None:
        """Adds a vector; where there is a mask, the lanes in which it is true."""
        let = self.module.let
        if mask is not None:
            lanes = self.module.type(BOOL, self.module.width)
            value = let(
                f"select {lanes} {mask}, {self.vector} {value}, {self.vector} zeroinitializer"
            )
        before = let(f"load {self.vector}, ptr %sum{number}")
        after = let(f"fadd {self.vector} {before}, {value}")
        self.module.put(f"store {self.vector} {after}, ptr %sum{number}")

    def end(self, chunk: str, chunks: str) -> None:
        """Ends a chunk of so many."""
        let, kind = self.module.let, f"v{self.module.width}f64"
        if self.count:
            self.module.declare(f"double @llvm.vector.reduce.fadd.{kind}(double, {self.vector})")
        for number in range(self.count):
            lanes = let(f"load {self.vector}, ptr %sum{number}")
            # Without a flag that allows otherwise, lane after lane.
            joined = let(
                f"call double @llvm.vector.reduce.fadd.{kind}(double -0.0, {self.vector} {lanes})"
            )
            place = let(f"add i64 {chunk}, {let(f'mul i64 {chunks}, {number}')}")
            address = let(f"getelementptr double, ptr %sums, i64 {place}")
            self.module.put(f"store double {joined}, ptr {address}")
