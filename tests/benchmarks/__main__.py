"""Runs the benchmarks, prints a table and stores it: `python -m tests.benchmarks`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import builds, eager, kernels, marquardt, updates
from tests.benchmarks.measure import HEAD, environment

SUITES = {
    "eager": eager.comparisons,
    "kernels": kernels.comparisons,
    "updates": updates.comparisons,
    "builds": builds.comparisons,
    "marquardt": marquardt.comparisons,
}


def main() -> int:
    """Exit status 1 if a ratio is beyond its bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default 5)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks.json"))
    parser.add_argument("--suite", choices=SUITES, nargs="*", default=list(SUITES))
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains TEXT")
    arguments = parser.parse_args()
    chosen = [
        comparison
        for suite in arguments.suite
        for comparison in SUITES[suite]()
        if arguments.only in comparison.name
    ]
    if not chosen:
        parser.error(f"--only {arguments.only!r}: no row of {arguments.suite} has that in its name")
    print(HEAD)
    found = []
    for comparison in chosen:
        for ratio in comparison.measure(arguments.rounds):
            print(ratio, flush=True)
            found.append(ratio)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "ratios": [asdict(ratio) for ratio in found]}
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(ratio.holds for ratio in found) else 1


if __name__ == "__main__":
    sys.exit(main())
