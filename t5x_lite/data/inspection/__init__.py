"""What a data set looks like on its way to the model, as facts, as text and as a page."""
