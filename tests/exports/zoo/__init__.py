"""Small detectors written for these tests after the published architectures, with the names their users know.

Only the graph that an export gives matters: widths are small, weights are random, and there is no training code.
"""
