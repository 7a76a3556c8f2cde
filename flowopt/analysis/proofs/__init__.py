"""Sound steps by which the sign of a formula is shown, and the search for the contrary."""
