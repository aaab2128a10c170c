"""Quantised models: where blocks go, and the QuantizeLinear and DequantizeLinear around them."""
