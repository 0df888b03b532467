"""Which of torch's step hooks are those of the outermost step.

An optimizer whose `step` calls `super().step()` runs them twice, one step within the other, if torch has put hooks on
the parent class as well, which it does once one of that class is made. What follows a step must wait for the outer one:
it may still change weights.
"""

import sys
from collections.abc import Iterator
from types import FrameType

_HOOKED = "torch.optim.optimizer"
"""The module whose function runs a step between its hooks."""


class StepNesting:
    """Follows one optimizer through its hooks: `enter` in the pre-hook, `leave` in the post-hook."""

    def __init__(self) -> None:
        self._outermost: FrameType | None = None
        self._inner = 0

    def enter(self) -> bool:
        """Whether this step is not within another. A step that has ended with an error does not count as running."""
        running = list(_hooked_frames())
        if self._outermost is not None and any(frame is self._outermost for frame in running):
            self._inner += 1
            return False
        self._outermost, self._inner = next(iter(running), None), 0
        return True

    def leave(self) -> bool:
        """Whether the step that ends is not within another."""
        if self._inner:
            self._inner -= 1
            return False
        self._outermost = None
        return True

    def __getstate__(self) -> dict[str, object]:
        """Frames do not travel; a copy is in no step."""
        return {"_outermost": None, "_inner": 0}


def _hooked_frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == _HOOKED:
            yield frame
        frame = frame.f_back
