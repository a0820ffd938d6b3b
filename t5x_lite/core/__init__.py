"""What every other package may rely on: batch keys, axis names, error texts, cache paths."""
