"""Metrics of the field, each named by its convention."""
