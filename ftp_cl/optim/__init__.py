"""FTP on any torch optimizer, AdamP, SGDP, and methods next to it: TPGM, SPD, DiGraP, MARS, L2-SP. Knows torch only."""

from ftp_cl.optim.adamp import AdamP
from ftp_cl.optim.ftp import FTP
from ftp_cl.optim.next_adapter import next_adapter
from ftp_cl.optim.penalties import l2_sp, mars_sp
from ftp_cl.optim.sgdp import SGDP
from ftp_cl.optim.spd import AdamSPD
from ftp_cl.optim.step_rules import AnchoredSteps, DirectionalProjection, FixedRadius, SelectiveDecay
from ftp_cl.optim.tpgm import TPGM

__all__ = [
    "FTP",
    "SGDP",
    "TPGM",
    "AdamP",
    "AdamSPD",
    "AnchoredSteps",
    "DirectionalProjection",
    "FixedRadius",
    "SelectiveDecay",
    "l2_sp",
    "mars_sp",
    "next_adapter",
]
