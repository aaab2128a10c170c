"""What a block is, and which ones are installed."""
