"""The algorithm on tensors: rows, radius, projection; a literal version as the oracle. Knows torch only."""

from ftp_cl.projection.backends.choose import available_backends, get_backends
from ftp_cl.projection.backends.protocol import Backend, Factored, Part, Rule, Scaler, Sharding, Update, parts_of
from ftp_cl.projection.factor_state import FactorState
from ftp_cl.projection.literal import LiteralState, literal_step
from ftp_cl.projection.rows import as_rows, row_norms
from ftp_cl.projection.tensor_state import Storage, TensorState

__all__ = [
    "Backend",
    "FactorState",
    "Factored",
    "LiteralState",
    "Part",
    "Rule",
    "Scaler",
    "Sharding",
    "Storage",
    "TensorState",
    "Update",
    "as_rows",
    "available_backends",
    "get_backends",
    "literal_step",
    "parts_of",
    "row_norms",
]
