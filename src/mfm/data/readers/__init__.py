"""Readers of published formats, one module for each; none executes what a file says."""

from mfm.data.readers.registry import fingerprint, fingerprint_meanwhile, read_corpus

__all__ = ["fingerprint", "fingerprint_meanwhile", "read_corpus"]
