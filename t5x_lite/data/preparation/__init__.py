"""Sets that are prepared once: converted, tokenised, or built with Beam."""
