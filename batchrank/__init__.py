"""Offline reranking over paid, rate-limited APIs."""

from batchrank.version import __version__

__all__ = ["__version__"]
