"""Fast Trainable Projection (FTP, arXiv 2310.19182) for continual learning with Avalanche and for plain PyTorch."""

__version__ = "0.1.0"
