"""Map which minimum each start of an optimizer reaches, and what its steps do to these basins."""
