"""Avalanche plugins: FTPPlugin, and what it is used with."""

from ftp_cl.plugins.classifier import find_classifier
from ftp_cl.plugins.freeze_batch_norm import FreezeBatchNorm, freeze_batch_norm
from ftp_cl.plugins.ftp import FTPPlugin

__all__ = ["FTPPlugin", "FreezeBatchNorm", "find_classifier", "freeze_batch_norm"]
