"""What needs PyTorch: modules of the engine's own. Imported only by the code that needs it, when it needs it."""
