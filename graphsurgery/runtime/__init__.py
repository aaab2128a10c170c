"""Running models: sessions of onnxruntime, providers, what is fed in, and what arrives inside."""

from __future__ import annotations

from .session import session, short_name

__all__ = ["session", "short_name"]
