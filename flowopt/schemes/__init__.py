"""Schemes: how a flow becomes a step."""

from flowopt.schemes.balanced.energy_midpoint import EnergyMidpoint
from flowopt.schemes.balanced.projected import Projected
from flowopt.schemes.balanced.restarted import Restarted
from flowopt.schemes.coefficients import TABLEAUX
from flowopt.schemes.drift import DriftScheme
from flowopt.schemes.euler import Euler
from flowopt.schemes.euler_richardson import EulerRichardson
from flowopt.schemes.linearly_implicit import LinearlyImplicitEuler
from flowopt.schemes.runge_kutta import RungeKutta
from flowopt.schemes.splitting import Splitting
from flowopt.schemes.stochastic import EulerMaruyama, LeimkuhlerMatthews
from flowopt.schemes.tableau import Tableau

__all__ = [
    "TABLEAUX",
    "DriftScheme",
    "EnergyMidpoint",
    "Euler",
    "EulerMaruyama",
    "EulerRichardson",
    "LeimkuhlerMatthews",
    "LinearlyImplicitEuler",
    "Projected",
    "Restarted",
    "RungeKutta",
    "Splitting",
    "Tableau",
]
