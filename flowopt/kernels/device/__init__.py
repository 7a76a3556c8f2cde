"""From scalar programs to code for GPUs."""
