"""Schemes: how a flow becomes a step."""

from flowopt.schemes.euler import Euler
from flowopt.schemes.runge_kutta import RungeKutta
from flowopt.schemes.splitting import Splitting
from flowopt.schemes.tableau import TABLEAUX, Tableau

__all__ = ["TABLEAUX", "Euler", "RungeKutta", "Splitting", "Tableau"]
