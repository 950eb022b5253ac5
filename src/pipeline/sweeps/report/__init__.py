"""The results of a sweep: rows, the table, figures, files."""
