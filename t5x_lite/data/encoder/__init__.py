"""Examples for encoders with heads: texts in their frame, with labels, spans or tags."""
