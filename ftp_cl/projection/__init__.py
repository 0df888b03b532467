"""The algorithm on tensors: rows, radius, projection; a literal version as the oracle. Knows torch only."""

from ftp_cl.projection.backends import Backend, available_backends, get_backend
from ftp_cl.projection.exact import exact_vote
from ftp_cl.projection.literal import LiteralState, literal_step
from ftp_cl.projection.radius import Radius
from ftp_cl.projection.rows import as_rows, row_norms
from ftp_cl.projection.tensor_state import Storage, TensorState

__all__ = [
    "Backend",
    "LiteralState",
    "Radius",
    "Storage",
    "TensorState",
    "as_rows",
    "available_backends",
    "exact_vote",
    "get_backend",
    "literal_step",
    "row_norms",
]
