"""Where equations meet states: formulas, code, energies, and the flow made of them."""
