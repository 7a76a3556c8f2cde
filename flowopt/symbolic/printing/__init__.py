"""Formulas as text: torch code for tensors and for lists of them, and LaTeX."""
