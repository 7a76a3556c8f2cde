"""The machine that code is made for: lanes, features, and which functions its libraries have."""

import platform
from dataclasses import dataclass
from functools import lru_cache

import llvmlite.binding as llvm

from flowopt.kernels.program import F64, FUNCTIONS

# Vector libraries by symbol name of glibc's vector ABI; where there is none, lanes call libm.
VECTOR_LIBRARIES = ("libmvec.so.1",)
MATH_LIBRARIES = ("libm.so.6",)
# Letter of the vector ABI by bits of a register.
ABI = {512: "e", 256: "d", 128: "b"}


@dataclass(frozen=True)
class Machine:
    """What code is generated for.

    Attributes:
        triple: Of LLVM.
        cpu: Name.
        features: As LLVM writes them.
        width: Lanes of a vector.
        functions: Names of vector functions that the process has.
        prefix: What the names of functions of one number begin with: exp, __nv_exp.
    """

    triple: str
    cpu: str
    features: str
    width: int
    functions: frozenset[str]
    prefix: str = ""

    def vector_function(self, name: str, dtype: str, lanes: int) -> str | None:
        """Symbol of a function over as many lanes, if there is one."""
        symbol = vector_symbol(name, dtype, lanes)
        return symbol if symbol in self.functions else None


def vector_symbol(name: str, dtype: str, lanes: int) -> str | None:
    """Symbol of a function over vectors by glibc's vector ABI."""
    letter = ABI.get(lanes * (64 if dtype == F64 else 32))
    if letter is None:
        return None
    operands = "v" * FUNCTIONS[name]
    return f"_ZGV{letter}N{lanes}{operands}_{name}{'' if dtype == F64 else 'f'}"


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """The machine that this process runs on."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    vector = platform.system() == "Linux" and platform.machine() == "x86_64"
    for library in (*MATH_LIBRARIES, *(VECTOR_LIBRARIES if vector else ())):
        try:
            llvm.load_library_permanently(library)
        except RuntimeError:
            # Not on this system: its functions are looked for and not found.
            continue
    features = llvm.get_host_cpu_features()
    width = 8 if features.get("avx512f") and features.get("avx512dq") else 4
    width = width if features.get("avx512f") or features.get("avx2") else 2
    symbols = (vector_symbol(name, dtype, width) for name in FUNCTIONS for dtype in ("f64", "f32"))
    found = frozenset(s for s in symbols if s and llvm.address_of_symbol(s))
    return Machine(
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        features.flatten(),
        width,
        found,
    )


def missing(symbols: tuple[str, ...]) -> list[str]:
    """Those of some external functions that the process has not: linking them would crash it."""
    return [symbol for symbol in symbols if not llvm.address_of_symbol(symbol)]
