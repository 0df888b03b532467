"""FTP on any torch optimizer, and AdamP and SGDP, the paper's drop-in optimizers. Knows torch only."""

from ftp_cl.optim.adamp import AdamP
from ftp_cl.optim.ftp import FTP
from ftp_cl.optim.sgdp import SGDP

__all__ = ["FTP", "SGDP", "AdamP"]
