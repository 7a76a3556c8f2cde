"""NVIDIA's libdevice: exp, log, … for GPUs as LLVM bitcode, wherever CUDA has left it."""

import os
from pathlib import Path

import torch

NAME = "libdevice.10.bc"
# Next to torch in the environment: the wheels that torch for CUDA depends on.
IN_WHEELS = (f"nvidia/*/nvvm/libdevice/{NAME}", f"triton/backends/nvidia/lib/{NAME}")
IN_TOOLKIT = f"nvvm/libdevice/{NAME}"
TOOLKITS = ("CUDA_HOME", "CUDA_PATH")


def find_libdevice() -> Path | None:
    """The file, of torch's wheels or of an installed CUDA toolkit; None if there is none."""
    wheels = Path(torch.__file__).parent.parent
    found = [path for pattern in IN_WHEELS for path in sorted(wheels.glob(pattern))]
    named = [Path(os.environ[name]) for name in TOOLKITS if os.environ.get(name)]
    found += [folder / IN_TOOLKIT for folder in named]
    found += sorted(Path("/usr/local").glob(f"cuda*/{IN_TOOLKIT}"))
    return next((path for path in found if path.is_file()), None)
