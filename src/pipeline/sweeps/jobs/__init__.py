"""The jobs of a sweep: what one is, where it runs, how it goes, what is recorded of it."""
