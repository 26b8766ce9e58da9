"""Losses in pure torch; objectives return named parts."""
