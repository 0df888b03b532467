"""APER: prototypes of the features that the first experience adapted, and of those of the backbone as it came."""

from typing import Any, Literal

from ftp_cl.models.prototypes import PrototypeHead
from ftp_cl.plugins.two_backbones import TwoBackbonesClassifier


class APER(TwoBackbonesClassifier):
    """The backbone is trained on the first experience alone; prototypes see its features beside the frozen ones.

    Zhou, Cai, Ye, Zhan, Liu, "Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and
    Adaptivity are All You Need", IJCV 2024, arXiv 2303.07338, section 5, "APER w/ Finetune" (first called ADAM): class
    means of both feature vectors beside each other, by cosine. It needs two forward passes an image. Neither image nor
    gradient of a later experience is used for anything but the means.

    Args:
        classifier: "ncm", as published; "lda" or "ranpac" fit theirs to the joined features, as `PrototypeClassifier`.
        shrinkage: of "lda", in [0, 1].
        projection_size: of "ranpac".

    Attributes:
        head: the prototype head; None before training. It takes features [B, 2 D].

    Raises:
        ValueError, TypeError: as `PrototypeClassifier` with features="first".
    """

    def __init__(
        self, classifier: Literal["ncm", "lda", "ranpac"] = "ncm", shrinkage: float = 0.5, projection_size: int = 10000
    ) -> None:
        super().__init__(classifier, "first", shrinkage=shrinkage, projection_size=projection_size)

    def take_in(self, strategy: Any) -> None:
        """Take in this experience with both backbones."""
        self._use_both(strategy.model)
        try:
            super().take_in(strategy)
        finally:
            self._use_own(strategy.model)

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Put the prototypes in place; evaluations in the middle of training are the model's own."""
        super().before_eval(strategy, **kwargs)
        if self._own_head is not None and self._own_backbone is None:
            self._use_both(strategy.model)

    def _new_head(self, num_features: int) -> PrototypeHead:
        return super()._new_head(2 * num_features)
