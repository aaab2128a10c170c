"""Running models: sessions of onnxruntime, providers, what is fed in, and how times are taken."""

from __future__ import annotations

from .session import Session

__all__ = ["Session"]
