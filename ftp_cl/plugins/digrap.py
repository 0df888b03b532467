"""Directional gradient projection (DiGraP) around the anchor of each experience."""

from typing import Any

from ftp_cl.optim import DirectionalProjection
from ftp_cl.optim.names import Exclude
from ftp_cl.optim.step_rules import Strength
from ftp_cl.plugins.anchor import Anchor
from ftp_cl.plugins.anchor_methods import AnchoredStepPlugin


class DiGraPPlugin(AnchoredStepPlugin):
    """Directional gradient projection: see `ftp_cl.optim.DirectionalProjection`, which names the paper.

    Strengths start again whenever the anchor moves. The factors of adapters are tensors of their own. Beside FTPPlugin,
    FTP's votes see the gradients as they are when it is their turn: put FTPPlugin first for those of the loss.

    Args:
        mu: step size of the strengths; 1e-2.
        anchor: see `AnchoredPlugin`; "initial" is the paper's choice, which knows one task.
        exclude: see `AnchoredPlugin`.

    Raises:
        ValueError: for a `mu` below 0 or not finite.
    """

    rule: DirectionalProjection

    def __init__(self, mu: float = 1e-2, anchor: Anchor = "previous", exclude: Exclude = "head") -> None:
        super().__init__(DirectionalProjection(mu), anchor, exclude)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of anchor and strengths if the anchor is to move."""
        super().before_training_exp(strategy, **kwargs)
        if self._moved:
            self.rule.strengths.clear()

    def begin(self, strategy: Any) -> None:
        """Let go of the strengths of tensors that others have replaced, such as a head that has grown."""
        super().begin(strategy)
        self.rule.strengths = {self._candidates[name]: known for name, known in self._strengths().items()}

    def strengths(self) -> dict[str, float]:
        """How strongly each tensor's gradients are projected, by name.

        0 leaves them alone, 1 leaves what is orthogonal to the change.
        """
        return {name: strength.numbers[0].item() for name, strength in self._strengths().items()}

    def state_dict(self) -> dict[str, Any]:
        """The strengths, too."""
        strengths = {name: (known.numbers, known.projected) for name, known in self._strengths().items()}
        return {**super().state_dict(), "strengths": strengths}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state, strategy)
        self.rule.strengths = {
            self._candidates[name]: Strength(*(tensor.clone() for tensor in known))
            for name, known in state["strengths"].items()
        }

    def _strengths(self) -> dict[str, Strength]:
        """Those of frozen tensors, too, whose anchor stays."""
        known = self.rule.strengths
        return {name: known[weight] for name, weight in self._candidates.items() if weight in known}
