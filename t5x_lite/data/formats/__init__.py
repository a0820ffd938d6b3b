"""File formats: where the records of a file lie and what is in them, with random access. Knows no task."""
