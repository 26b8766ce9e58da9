"""Readers of published formats, one module for each; none executes what a file says."""

from mfm.data.readers.registry import fingerprint, read_corpus

__all__ = ["fingerprint", "read_corpus"]
