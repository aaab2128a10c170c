"""The graph of a model, read only: an index, shapes, module paths, quantisation, validity."""
