"""Error against cost: a flow stepped by every scheme, and by other libraries' solvers."""
