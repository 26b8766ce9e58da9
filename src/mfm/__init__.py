"""The Multimodal Factorization Model and its kin, on PyTorch Lightning."""

__version__ = "0.1.0"
