"""Fast Trainable Projection (FTP, arXiv 2310.19182) for continual learning with Avalanche and for plain PyTorch."""

import sys

from ftp_cl.renamed import OldPaths

__version__ = "0.1.0"

sys.meta_path.append(OldPaths())
