"""The trained head and discriminant analysis on adapted and on frozen features, deciding together."""

from typing import Any

from ftp_cl.models import ClassifierHead, ContinualClassifier, EnsembleHead, LinearDiscriminantHead
from ftp_cl.plugins.prototypes import experience_features
from ftp_cl.plugins.seen_classes import SeenClasses
from ftp_cl.plugins.stages import experiences_trained_on
from ftp_cl.plugins.two_backbones import TwoBackbonesClassifier


class LDAEnsemble(TwoBackbonesClassifier):
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
        self._seen, self._share = SeenClasses(), 1.0

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Give the model its own backbone and head back; keep a copy of the backbone before it is trained."""
        super().before_train_dataset_adaptation(strategy, **kwargs)
        if not isinstance(strategy.model.head, ClassifierHead):
            raise TypeError(
                f"LDAEnsemble needs a head that grows, such as the models' own (head='cosine'), not "
                f"{type(strategy.model.head).__name__}."
            )

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
        assert self.frozen_head is not None
        width = model.num_features
        self._own_head = model.head
        heads, weights = [self._own_head, self.head, self.frozen_head], [self._share, self._share, 1.0]
        self._use_both(model)
        model.head = EnsembleHead(heads, [width, 0, width], weights)
        model.eval()  # Avalanche has done so already, but for what is new

    def state_dict(self) -> dict[str, Any]:
        """The prototypes of both kinds, and the backbone as it came."""
        return {
            **super().state_dict(),
            "share": self._share,
            "seen": self._seen.classes,
            "frozen_head": None if self.frozen_head is None else dict(self.frozen_head.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state, strategy)
        self._share, self._seen.classes = state["share"], state["seen"]
        if self.frozen_head is not None:
            self.frozen_head.load_state_dict(state["frozen_head"])

    def _keep_frozen(self, model: ContinualClassifier) -> None:
        super()._keep_frozen(model)
        self.frozen_head = LinearDiscriminantHead(model.num_features, self.shrinkage)
        self.frozen_head.to(next(model.backbone.parameters()).device)
