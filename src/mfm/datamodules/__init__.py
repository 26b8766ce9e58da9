"""LightningDataModules: one with everything, one small subclass a corpus."""
