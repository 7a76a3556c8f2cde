"""Orders of convergence, measured."""

from __future__ import annotations

import numpy as np
import xarray as xr

# Errors that rounding or the reference itself makes, and those before the asymptotic range.
FLOOR, CEILING = 1e-10, 0.1
LAST = 3
# An adaptive solver at its tightest tolerance takes the same steps again.
SAME_COST = 0.02


def measured_slope(cost: xr.DataArray, error: xr.DataArray) -> float:
    """Order at which the error falls with the cost: −d log error/d log cost of the finest runs.

    By least squares over the last three levels whose errors are between 1e-10 and 0.1 and whose
    costs are above those of the level before; NaN where there are fewer than two.
    """
    dearer = np.diff(cost.values, prepend=0.0) > SAME_COST * cost.values
    good = np.isfinite(error.values) & (error.values > FLOOR) & (error.values < CEILING) & dearer
    x, y = np.log(cost.values[good])[-LAST:], np.log(error.values[good])[-LAST:]
    return float(-np.polyfit(x, y, 1)[0]) if len(x) > 1 else float("nan")
