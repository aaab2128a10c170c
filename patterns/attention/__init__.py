"""The attention blocks, one file each. A file here with a subclass of :class:`graphsurgery.blocks.block.Block` is all a
block needs.
"""
