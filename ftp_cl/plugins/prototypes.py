"""Prototype classifiers on features that are frozen, trained once or trained throughout."""

from typing import Any, Literal

import torch
from torch import Tensor

from ftp_cl.models import ContinualClassifier, CosineHead, LinearDiscriminantHead, NearestMeanHead, RandomProjectionHead
from ftp_cl.models.heads import classes_of
from ftp_cl.models.imprinting import class_features
from ftp_cl.models.prototypes import ClassMeansHead, PrototypeHead
from ftp_cl.plugins.last_model import LastModel
from ftp_cl.plugins.skip_training import SkipTraining
from ftp_cl.plugins.stages import (
    PartsDone,
    begins,
    experiences_trained_on,
    has_hidden_boundaries,
    refuse_hidden,
    whole_experience,
)

_CLASSIFIERS = ("ncm", "lda", "ranpac")
_FEATURES = ("frozen", "first", "all")


class PrototypeClassifier(SkipTraining):
    """Classifies with prototypes of the features, fitted to each experience when it has ended.

    Training, if there is any, is that of the strategy, with the model's own head; in evaluations after training a
    prototype head takes its place, and gives it back when training goes on. It takes in the training images of each
    experience once, in one pass under evaluation transforms, so no image is stored. Where an online stream shows an
    experience in parts, it takes in the experience when the last part is trained; where boundaries are hidden, each
    part.

    Args:
        classifier: "ncm" (`NearestMeanHead`, as SimpleCIL), "lda" (`LinearDiscriminantHead`) or "ranpac"
            (`RandomProjectionHead`), which name their papers.
        features: "frozen": of the backbone as it came; nothing is trained. "first": it is trained on the experience
            that comes first, whatever its number, and on no other ("first-session adaptation": Panos et al., ICCV 2023,
            arXiv 2303.13199; APER, of SimpleCIL's paper, joins these features with frozen ones, and RanPAC's phase 1
            trains adapters). "all": it is trained on every experience.
        drift: with features="all", move the means of earlier classes by the drift that `feature_drift` estimates.
        bandwidth: of `feature_drift`.
        shrinkage: of "lda", in [0, 1].
        projection_size: of "ranpac"; 10000 by default as in the paper, which takes 800 MB, twice that while
            its equations are solved, and on a CPU core about a quarter of a minute an experience.

    Attributes:
        head: the prototype head; None before training. `model.head = plugin.head` makes it the model's own.

    Raises:
        ValueError: for an unknown classifier or features, or drift with "ranpac", which has no means to be moved; when
            training starts, if the plugin has served another model, the strategy has two of the kind, or
            features="first" in an online stream that shows no boundaries.
        TypeError: when training starts, if the model is no `ContinualClassifier`.
    """

    def __init__(
        self,
        classifier: Literal["ncm", "lda", "ranpac"] = "lda",
        features: Literal["frozen", "first", "all"] = "frozen",
        drift: bool = False,
        bandwidth: float = 0.3,
        shrinkage: float = 0.5,
        projection_size: int = 10000,
    ) -> None:
        super().__init__()
        if classifier not in _CLASSIFIERS:
            raise ValueError(f"classifier={classifier!r} is unknown; choose one of {', '.join(_CLASSIFIERS)}.")
        if features not in _FEATURES:
            raise ValueError(f"features={features!r} is unknown; choose one of {', '.join(_FEATURES)}.")
        if drift and classifier == "ranpac":
            raise ValueError("drift=True needs class means, which classifier='ranpac' does not keep: use ncm or lda.")
        if not bandwidth > 0:
            raise ValueError(f"bandwidth={bandwidth} must be above 0.")
        self.classifier, self.features, self.drift, self.bandwidth = classifier, features, drift, bandwidth
        self.shrinkage, self.projection_size = shrinkage, projection_size
        self.head: PrototypeHead | None = None
        self._new_head(1)  # checks the options of the classifier
        self._own_head: Any = None
        self._last_model = LastModel()
        self._in_training = False
        self._parts = PartsDone()
        self._features_before: Tensor | None = None

    # ---- Avalanche's hooks ------------------------------------------------------------------------------------------

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Give the model its own head back, before it grows and enters the optimizer; skip what is not trained."""
        self._check(strategy)
        model = strategy.model
        if self.head is None:
            self.head = self._new_head(model.num_features).to(strategy.device)
        if self._own_head is not None:
            model.head, self._own_head = self._own_head, None
        self._in_training = True
        self._parts.begin(strategy.experience)
        if self.features == "frozen" or (self.features == "first" and self.head.counts.any()):
            self.skip(strategy)
            if strategy.optimized_param_id is None:  # as Avalanche does before a head grows, which replaces weights
                strategy.make_optimizer(reset_optimizer_state=True)
            if isinstance(model.head, CosineHead):  # spare the pass over the images: it is not used any more
                classes = classes_of(whole_experience(strategy.experience))
                model.head.activate(classes)
                model.head.imprinted[classes] = 1

    def _check(self, strategy: Any) -> None:
        name, model = type(self).__name__, strategy.model
        if not isinstance(model, ContinualClassifier):
            raise TypeError(
                f"{name} needs a ContinualClassifier of ftp_cl.models, not {type(model).__name__}: wrap your backbone, "
                "ContinualClassifier(backbone, num_features)."
            )
        if self._last_model.is_other_than(model):
            raise ValueError(f"{name} knows the classes of another model: give each strategy a plugin of its own.")
        if sum(isinstance(plugin, PrototypeClassifier) for plugin in strategy.plugins) > 1:
            raise ValueError(f"{name} and another prototype classifier would take each other's place: keep one.")
        if self.features == "first":
            refuse_hidden(strategy.experience, "features='first'")
        self._last_model.remember(model)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the new images with the old features, to see later how these drift."""
        is_new = begins(strategy.experience) or has_hidden_boundaries(strategy.experience)
        if is_new and self.drift and self.features == "all" and self.head is not None and self.head.counts.any():
            found = experience_features(strategy)
            self._features_before = None if found is None else found[0]

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Move the earlier means, and take in this experience."""
        super().after_training_exp(strategy, **kwargs)
        if self._parts.end(strategy.experience, if_hidden=True):
            self._in_training = False
            self.take_in(strategy)

    def take_in(self, strategy: Any) -> None:
        """Called when an experience has ended."""
        found = experience_features(strategy)
        if found is None or self.head is None:
            return
        features, targets = found
        if self._features_before is not None and isinstance(self.head, ClassMeansHead):
            earlier = self.head.counts.nonzero().flatten().tolist()
            means = self.head.means[earlier]
            self.head.shift(earlier, feature_drift(means, self._features_before, features, self.bandwidth))
            self._features_before = None
        self.head.update(features, targets)

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Put the prototypes in place; evaluations in the middle of training are the model's own."""
        if self.head is not None and not self._in_training and self._own_head is None:
            # Avalanche has put the model into evaluation mode already; in training mode, a head takes the classes of
            # the experience that it is tested on for its own.
            strategy.model.head, self._own_head = self.head.eval(), strategy.model.head

    # ---- checkpoints of ftp_cl's runs -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The prototypes; checkpoints are written in training, when the model has its own head."""
        return {
            "head": None if self.head is None else dict(self.head.state_dict()),
            "in_training": self._in_training,
            "features_before": self._features_before,
            "parts": self._parts.count,
        }

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave, for a strategy whose model is as it was then."""
        if state["head"] is not None:
            self.head = self._new_head(strategy.model.num_features).to(strategy.device)
            self.head.load_state_dict(state["head"])
        self._in_training, self._features_before = state["in_training"], state["features_before"]
        self._parts.count = state["parts"]

    def _new_head(self, num_features: int) -> PrototypeHead:
        if self.classifier == "ncm":
            return NearestMeanHead(num_features)
        if self.classifier == "lda":
            return LinearDiscriminantHead(num_features, self.shrinkage)
        return RandomProjectionHead(num_features, self.projection_size)


class FrozenLDA(PrototypeClassifier):
    """Linear discriminant analysis on frozen features (Hayes and Kanan 2020, arXiv 1909.01520).

    Args:
        shrinkage: of the covariance towards a multiple of the identity, in [0, 1].
    """

    def __init__(self, shrinkage: float = 0.5) -> None:
        super().__init__("lda", "frozen", shrinkage=shrinkage)


def feature_drift(means: Tensor, before: Tensor, after: Tensor, bandwidth: float) -> Tensor:
    """How far each mean has moved, judged by images near it.

    Yu et al., "Semantic Drift Compensation for Class-Incremental Learning", CVPR 2020, arXiv 2004.00440, equations 8
    and 9: the average of after - before over images, weighted by a Gaussian of the distance from the mean to the
    image's feature before. The paper has features of length 1 and a width of 0.3; here the width is in units of the
    root mean square of those distances, for each mean.

    Args:
        means: [C, D].
        before: [N, D], features of N images under the earlier backbone.
        after: [N, D], of the same under the present one.
        bandwidth: the Gaussian's standard deviation in these units.

    Returns:
        [C, D].
    """
    before, after = before.to(means), after.to(means)
    squared = torch.cdist(means, before).square()
    typical = squared.mean(dim=1, keepdim=True).clamp_min(torch.finfo(means.dtype).tiny)
    weights = (squared / typical / (-2 * bandwidth**2)).softmax(dim=1)
    return weights @ (after - before)


def experience_features(strategy: Any) -> tuple[Tensor, Tensor] | None:
    """Features [N, D] and targets [N] of the images that are trained on; None if there are none."""
    model, experiences = strategy.model, experiences_trained_on(strategy)
    found = [class_features(model, model.features, e.dataset.eval(), set(classes_of(e))) for e in experiences]
    parts = [part for part in found if part is not None]
    if not parts:
        return None
    features, targets = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(targets)
