"""The vocabulary: states, evaluations, noise, status, and the interfaces that connect the rest."""
