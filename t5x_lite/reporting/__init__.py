"""Pages about runs and sweeps: one file each, without a network."""
