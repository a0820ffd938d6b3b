"""One small file per model family, composed of the blocks of t5x_lite.nn."""
