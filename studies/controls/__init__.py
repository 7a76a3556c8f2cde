"""Step controls in training: energies and expected slopes against rates that stay."""
