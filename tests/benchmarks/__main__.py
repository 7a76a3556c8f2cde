"""Runs the benchmarks, prints a table and stores it: `python -m tests.benchmarks`."""

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from tests.benchmarks import builds, eager, kernels, marquardt, updates
from tests.benchmarks.measure import Ratio

SUITES = {
    "eager": eager.ratios,
    "kernels": kernels.ratios,
    "updates": updates.ratios,
    "builds": builds.ratios,
    "marquardt": marquardt.ratios,
}


def main() -> int:
    """Exit status 1 if a ratio is beyond its bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default 5)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks.json"))
    parser.add_argument("--suite", choices=SUITES, nargs="*", default=list(SUITES))
    arguments = parser.parse_args()
    found = [ratio for name in arguments.suite for ratio in SUITES[name](arguments.rounds)]
    print(_table(found))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "ratios": [asdict(ratio) for ratio in found]}
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(ratio.holds for ratio in found) else 1


def environment() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _table(found: list[Ratio]) -> str:
    width = max(len(ratio.name) for ratio in found)
    head = f"{'comparison':<{width}}  {'ours/ms':>9}  {'peer/ms':>9}  {'ratio':>6}  {'bar':>5}"
    rows = [
        f"{r.name:<{width}}  {r.ours * 1e3:9.1f}  {r.peer * 1e3:9.1f}  {r.ratio:6.2f}  {r.bar:5.2f}"
        + ("" if r.holds else "  beyond the bar")
        for r in found
    ]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    sys.exit(main())
