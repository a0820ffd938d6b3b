"""Looking inside models: attention maps, attributions, probes."""
