"""Groups as blocks: their equations, and steps of several with joint gradients."""
