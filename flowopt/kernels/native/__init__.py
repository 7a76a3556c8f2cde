"""From scalar programs to machine code."""
