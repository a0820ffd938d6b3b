"""Metrics as mergeable sums: values are added over batches and hosts first and divided once, at the end."""
