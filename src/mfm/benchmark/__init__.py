"""Suites of corpora x models x seeds: running them, and tables that say how sure they are."""
