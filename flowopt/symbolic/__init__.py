"""Equations as data: the language, its text form, the maps of letters, energies, printed code."""
