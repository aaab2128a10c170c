"""FeatureMap under the name that it had for packages written before: see graphsurgery.feature_map."""

from __future__ import annotations

import warnings

from .feature_map import FeatureMap, channels_first, float_dtype

__all__ = ["FeatureMap", "channels_first", "float_dtype"]

warnings.warn("graphsurgery.featuremap is graphsurgery.feature_map now", DeprecationWarning, stacklevel=2)
