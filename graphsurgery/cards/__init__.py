"""The catalogue described: facts, cards and the table of blocks."""
