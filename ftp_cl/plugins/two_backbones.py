"""Prototype classifiers that also look at an image with the backbone as it came."""

import copy
from typing import Any

from ftp_cl.models import ContinualClassifier, TwoBackbones
from ftp_cl.plugins.prototypes import PrototypeClassifier


class TwoBackbonesClassifier(PrototypeClassifier):
    """Base of methods that keep a frozen copy of the backbone, and join its features to those that are trained."""

    _frozen: Any = None
    _own_backbone: Any = None

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Give the model its own backbone and head back; keep a copy of the backbone before it is trained."""
        super().before_train_dataset_adaptation(strategy, **kwargs)
        self._use_own(strategy.model)
        if self._frozen is None:
            self._keep_frozen(strategy.model)

    def _keep_frozen(self, model: ContinualClassifier) -> None:
        self._frozen = copy.deepcopy(model.backbone).requires_grad_(False).eval()

    def _use_both(self, model: ContinualClassifier) -> None:
        """Let the model's features be its own [B, D] and the frozen ones [B, D], beside each other."""
        self._own_backbone = model.backbone
        model.backbone, model.num_features = TwoBackbones(self._own_backbone, self._frozen), 2 * model.num_features
        model.backbone.train(self._own_backbone.training)

    def _use_own(self, model: ContinualClassifier) -> None:
        if self._own_backbone is not None:
            model.backbone, self._own_backbone = self._own_backbone, None
            model.num_features //= 2

    # ---- checkpoints of ftp_cl's runs -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The prototypes, and the backbone as it came."""
        return {**super().state_dict(), "frozen": None if self._frozen is None else dict(self._frozen.state_dict())}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state, strategy)
        if state["frozen"] is not None:
            self._keep_frozen(strategy.model)
            self._frozen.load_state_dict(state["frozen"])
