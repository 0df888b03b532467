"""The trained head and discriminant analysis on adapted and on frozen features, deciding together."""

import copy
from typing import Any

from torch import nn

from ftp_cl.models import ClassifierHead, ContinualClassifier, EnsembleHead, LinearDiscriminantHead, TwoBackbones
from ftp_cl.plugins.prototypes import PrototypeClassifier, experience_features
from ftp_cl.plugins.seen_classes import SeenClasses
from ftp_cl.plugins.stages import experiences_trained_on


class LDAEnsemble(PrototypeClassifier):
    """Classifies with three opinions on an image, at the price of a second forward pass.

    The head that was trained; linear discriminant analysis on the features that training adapts, whose earlier means
    follow the drift; and the same on the features of the backbone as it came. The last cannot forget, the others know
    what was learned; their errors differ. Each opinion's logits are standardised over the classes seen and averaged
    (`EnsembleHead`). The first two weigh as much as the share of the classes seen that the last experience had:
    training on few of them moves the features of the others, too. Where every experience has all classes, all weigh
    alike.

    Training is that of the strategy, and no image is stored. A second copy of the backbone is kept. Averaging the
    outputs of a pretrained and a fine-tuned model is the output-space ensemble of Wortsman et al. (2022,
    arXiv 2109.01903, section 5); the two discriminant analyses in it are this project's.

    Args:
        shrinkage: of both covariances, in [0, 1]; 0.9: configs/method/lda_ensemble.yaml says how it was chosen.
        bandwidth: of `feature_drift`.

    Attributes:
        head: the discriminant analysis on adapted features.
        frozen_head: that on frozen ones; None before training.

    Raises:
        ValueError: an argument is out of range, or as `PrototypeClassifier`.
        TypeError: when training starts, if the model is no `ContinualClassifier` or its head none that grows.
    """

    def __init__(self, shrinkage: float = 0.9, bandwidth: float = 0.3) -> None:
        super().__init__("lda", "all", drift=True, bandwidth=bandwidth, shrinkage=shrinkage)
        self.frozen_head: LinearDiscriminantHead | None = None
        self._frozen: nn.Module | None = None
        self._own_backbone: Any = None
        self._seen, self._share = SeenClasses(), 1.0

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Give the model its own backbone and head back; keep a copy of the backbone before it is trained."""
        super().before_train_dataset_adaptation(strategy, **kwargs)
        model = strategy.model
        if self._own_backbone is not None:
            model.backbone, self._own_backbone = self._own_backbone, None
            model.num_features //= 2
        if self._frozen is None:
            if not isinstance(model.head, ClassifierHead):
                raise TypeError(
                    f"LDAEnsemble needs a head that grows, such as the models' own (head='cosine'), not "
                    f"{type(model.head).__name__}."
                )
            self._keep_frozen(model)

    def take_in(self, strategy: Any) -> None:
        """Take in this experience with both backbones."""
        super().take_in(strategy)
        if experiences_trained_on(strategy):
            self._share = self._seen.share(strategy)
        model = strategy.model
        adapted, model.backbone = model.backbone, self._frozen
        try:
            found = experience_features(strategy)
        finally:
            model.backbone = adapted
        if found is not None and self.frozen_head is not None:
            self.frozen_head.update(*found)

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Put the ensemble in place; evaluations in the middle of training are the model's own."""
        if self.head is None or self._in_training or self._own_head is not None:
            return
        model: ContinualClassifier = strategy.model
        self._own_head, self._own_backbone = model.head, model.backbone
        width = model.num_features
        assert self._frozen is not None and self.frozen_head is not None
        heads, weights = [self._own_head, self.head, self.frozen_head], [self._share, self._share, 1.0]
        model.head = EnsembleHead(heads, [width, 0, width], weights)
        model.backbone, model.num_features = TwoBackbones(self._own_backbone, self._frozen), 2 * width
        model.eval()  # Avalanche has done so already, but for what is new

    def state_dict(self) -> dict[str, Any]:
        """The prototypes of both kinds, and the backbone as it came."""
        return {
            **super().state_dict(),
            "share": self._share,
            "seen": self._seen.classes,
            "frozen_head": None if self.frozen_head is None else dict(self.frozen_head.state_dict()),
            "frozen": None if self._frozen is None else dict(self._frozen.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state, strategy)
        self._share, self._seen.classes = state["share"], state["seen"]
        if state["frozen"] is not None:
            self._keep_frozen(strategy.model)
            assert self._frozen is not None and self.frozen_head is not None
            self._frozen.load_state_dict(state["frozen"])
            self.frozen_head.load_state_dict(state["frozen_head"])

    def _keep_frozen(self, model: ContinualClassifier) -> None:
        self._frozen = copy.deepcopy(model.backbone).requires_grad_(False).eval()
        self.frozen_head = LinearDiscriminantHead(model.num_features, self.shrinkage)
        self.frozen_head.to(next(self._frozen.parameters()).device)
