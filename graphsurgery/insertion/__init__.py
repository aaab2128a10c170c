"""Insertions: with removal the only place where the graph of a model is changed."""
