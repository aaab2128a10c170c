"""PyTorch modules of the attention blocks: one file a block, written from the published formula.

Each module takes a feature map ``[N, C, H, W]`` and returns one of the same shape and dtype, keeps its parameters
under the official names, and works in training and in evaluation mode. Import the file of the block that you need, for
example ``graphsurgery.patterns.modules.se``: nothing is imported here, so that torch comes only with a module.
"""
