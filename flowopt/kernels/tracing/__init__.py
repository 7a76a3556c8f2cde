"""From torch functions to scalar programs."""
