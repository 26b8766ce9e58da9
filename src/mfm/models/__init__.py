"""Models in pure torch."""
