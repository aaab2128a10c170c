"""Selectors: text that names places in a model, and what it names there."""
