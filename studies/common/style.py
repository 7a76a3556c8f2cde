"""How figures look: colours that the colour-blind tell apart, quiet axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import xarray as xr
from matplotlib.figure import Figure

from studies.common.results import ResultFolder

# Okabe & Ito 2008, "Color universal design", without the yellow that white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,
}


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the curve with a number: no two of 32 are the same."""
    dashes = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dashes}


def drawn(
    folder: ResultFolder, name: str, figure: Callable[[xr.Dataset], Figure]
) -> tuple[Path, Path]:
    """Draws a figure of a result folder's arrays, and saves it under a name as PNG and PDF."""
    arrays = folder.read_dataset("arrays.nc")
    with matplotlib.rc_context(STYLE):
        return folder.save_figure(figure(arrays), name)
