"""The block tree of a model with its sites, as rows and as a picture."""
