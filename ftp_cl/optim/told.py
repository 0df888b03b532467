"""Warnings that are given once."""

import logging
from collections.abc import Sequence

logger = logging.getLogger("ftp_cl.optim.ftp")


class Told:
    """What a user has been told already."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def once(self, key: str, message: str) -> None:
        """Warn, unless it was done under this key before."""
        if key not in self._keys:
            self._keys.add(key)
            logger.warning(message)

    def of_skips(self, names: Sequence[str]) -> None:
        """Warn of tensors in whose steps something was not finite, each once."""
        if new := [name for name in names if f"{name}:finite" not in self._keys]:
            self._keys.update(f"{name}:finite" for name in new)
            logger.warning(
                "%s: a gradient or weight is not finite; votes and rows with such numbers are left out, and the step "
                "is counted (FTP.skipped()).",
                and_more(new),
            )


def and_more(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}"
