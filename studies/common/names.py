"""The sentence about a name that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    """Say that a name is unknown, which one is nearest, and which ones exist.

    Args:
        kind: What the name should have named, such as "data set".
        name: What came.
        choices: The names that exist.

    Returns:
        One line, fit for the message of an error.
    """
    known = sorted(choices)
    nearest = difflib.get_close_matches(name, known, n=1)
    suggestion = f", did you mean {nearest[0]!r}?" if nearest else ":"
    return f"unknown {kind} {name!r}{suggestion} known are {', '.join(known) or 'none'}"
