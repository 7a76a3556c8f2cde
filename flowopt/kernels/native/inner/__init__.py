"""Inside a step: loops over elements and over rows of data, functions that are written out."""
