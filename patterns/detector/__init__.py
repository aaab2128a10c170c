"""Detector patterns: what selectors and `graphsurgery sites` know by name."""
