"""The oracle: plain Python (dict, deque, attrs), written to be read beside specs/matching.md."""

from ferrox.reference.engine import ReferenceEngine

__all__ = ["ReferenceEngine"]
