"""Versions of models, which of them is @champion, and whether a new one may become it."""
