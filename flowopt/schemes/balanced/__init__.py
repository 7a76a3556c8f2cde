"""Schemes whose steps change an energy by what the flow changes it."""
