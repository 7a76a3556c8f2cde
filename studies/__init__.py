"""Studies: each folder makes the figures and numbers of one claim with flowopt."""
