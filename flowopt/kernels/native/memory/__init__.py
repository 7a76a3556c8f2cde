"""Where the tensors of optimizer steps lie, found in one native call each."""
