"""The report: what the parts say, and the names that stand in their tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from studies.basins.methods import MEANINGS

INTRODUCTION = """\
# Basins of attraction

Where the trajectories of optimizers end, on problems whose critical points are all known and on
small networks, beside the records of B. Bensaid, "the author" (public result files, 2021 to 2022).
R is the loss, g its gradient; a name such as gd@0.1 is a method with its step size h, and the names
are explained at the end."""


def report(sections: Sequence[str]) -> str:
    """All sections under an introduction, and what the methods in their tables are.

    Args:
        sections: Markdown, one per part.
    """
    text = "\n\n".join(sections)
    lines = [f"- {name}: {meaning}." for name, meaning in MEANINGS.items() if _stands(name, text)]
    methods = "\n\n## Methods\n\n" + "\n".join(lines) if lines else ""
    return f"{INTRODUCTION}\n\n{text}{methods}\n"


def _stands(name: str, text: str) -> bool:
    """Whether a cell of a table has this method."""
    return re.search(rf"\| {re.escape(name)}(@\S+)? +\|", text) is not None
