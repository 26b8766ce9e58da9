"""Readers, the store, datasets and batches; no Lightning, no wandb, and torch only where batches are made."""
