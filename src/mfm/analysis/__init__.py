"""Interpretation, generation and result tables, without Lightning."""
