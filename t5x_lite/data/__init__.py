"""From files to host batches: sources, tokenizers, tasks, packing, pipeline. Knows no model."""
