"""The catalogue: attention blocks (attention/), their PyTorch twins (modules/) and detector patterns (detector/).

Nothing is imported here. The engine finds blocks through the entry-point group ``graphsurgery.patterns``.
"""
