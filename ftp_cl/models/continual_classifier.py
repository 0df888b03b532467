"""A backbone with a head that grows with the stream: the model that every strategy here trains."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from avalanche.benchmarks.scenarios import CLExperience
from avalanche.models import DynamicModule, MultiTaskModule
from torch import Tensor, nn

from ftp_cl.models.heads import HEADS, CosineHead, classes_of
from ftp_cl.models.imprinting import class_features
from ftp_cl.models.preprocessing import Preprocessing


class Normalization(nn.Module):
    """(image - mean) / std per channel, as the first layer of a model rather than a transform one may forget.

    Shapes: [B, C, H, W] -> [B, C, H, W], C = ``len(mean)``. Mean and std are buffers that are not saved.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        """Create the layer.

        Args:
            mean: Per channel, in units of the images (0 to 1).
            std: Per channel, in the same units.

        Raises:
            ValueError: The two differ in length.
        """
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels and std has {len(std)}")
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise ``images``.

        Raises:
            ValueError: They are not floats or not of the model's number of channels.
        """
        channels = len(self.mean)
        if images.ndim != 4 or images.shape[1] != channels:
            hint = "; for texts use model=text" if images.ndim == 2 else ""
            raise ValueError(f"the model takes images [B, {channels}, H, W], got {list(images.shape)}{hint}")
        if not images.is_floating_point():
            raise ValueError(f"the model takes float images in [0, 1], got {images.dtype}")
        return (images - self.mean) / self.std


class ContinualClassifier(DynamicModule):
    """A backbone, and a head that grows as classes appear.

    **Images go in as floats in [0, 1], RGB where there are three channels, and are normalised inside the model.** Do
    not put ``transforms.Normalize`` into your transforms: ``ToTensor()`` is all that is needed.

    With a ``CosineHead``, training on an experience first *imprints* the classes that are new: before the first step,
    their images pass once through the backbone in evaluation mode, under the evaluation transforms of the dataset,
    and set their rows. Classes imprinted before keep the rows that training gave them. Nothing else changes:
    BatchNorm statistics, training flags and random generators are as before.

    With a head that takes task labels, such as Avalanche's ``MultiHeadClassifier``, the model becomes a
    ``MultiTaskContinualClassifier``.

    Shapes: images [B, C, H, W] -> logits [B, largest class id seen + 1].

    Attributes:
        normalization: First layer; ``nn.Identity()`` where images need none.
        backbone: Images -> features [B, D].
        head: Features -> logits. Replace it for other settings: ``model.head = CosineHead(model.num_features, 8.0)``.
        num_features: D.
        preprocessing: How images were made for the backbone's pretraining; None where that is not known.
        channels_last: Lay images out channels last on CPUs; weights keep their layout. Measured (AMD EPYC with AVX2,
            batch 16, 48 and 64 px, forward and backward): EfficientNet-Lite0 takes 10 to 17 % less time, ResNet-18
            34 % more.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        *,
        head: str | nn.Module = "cosine",
        normalization: nn.Module | None = None,
        channels_last: bool = False,
    ):
        """Create the model.

        Args:
            backbone: Maps normalised images to features [B, num_features].
            num_features: Length D of a feature vector.
            head: "cosine", "linear", or a module.
            normalization: Maps images in [0, 1] to what the backbone expects; None for no change.
            channels_last: See above.

        Raises:
            ValueError: There is no head of this name.
        """
        super().__init__()
        self.normalization = normalization if normalization is not None else nn.Identity()
        self.backbone = backbone
        if not isinstance(head, nn.Module) and head not in HEADS:
            nearest = get_close_matches(head, HEADS, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"there is no head {head!r}: choose one of {', '.join(HEADS)}{hint}")
        self.head = head if isinstance(head, nn.Module) else HEADS[head](num_features)
        self.num_features = num_features
        self.channels_last = channels_last
        self.preprocessing: Preprocessing | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a head that takes task labels makes the model one that takes them.

        Raises:
            TypeError: Such a head is given to another subclass.
        """
        if name == "head" and isinstance(value, MultiTaskModule) and not isinstance(self, MultiTaskModule):
            if type(self) is not ContinualClassifier:
                raise TypeError(
                    f"a {type(value).__name__} takes task labels, and {type(self).__name__} none: derive it from "
                    "MultiTaskContinualClassifier"
                )
            self.__class__ = MultiTaskContinualClassifier
        super().__setattr__(name, value)

    def features(self, images: Tensor) -> Tensor:
        """Return the features [B, D] of ``images`` [B, C, H, W], floats in [0, 1].

        Raises:
            ValueError: The images have the wrong type or number of channels, or the backbone does not return [B, D].
        """
        images = self.normalization(images)
        if self.channels_last and images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.backbone(images)
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(f"the backbone must return [B, {self.num_features}], got {list(features.shape)}")
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [B, classes] of ``images`` [B, C, H, W], floats in [0, 1]; untrained classes are masked."""
        return self.head(self.features(images))

    def get_classifier(self) -> nn.Module:
        """Return the head, under the name that timm gives this method."""
        return self.head

    def adaptation(self, experience: CLExperience) -> None:
        """Grow the head and, in training mode, imprint classes that are new. Called by Avalanche; may be repeated.

        Raises:
            ValueError: The experience does not list its classes.
        """
        if not isinstance(self.head, DynamicModule):
            return
        self.head.adaptation(experience)
        head = self.head
        if self.training and isinstance(head, CosineHead) and (new := head.unimprinted(classes_of(experience))):
            found = class_features(self, self.features, experience.dataset.eval(), set(new))
            if found is not None:
                head.imprint(*found)


class MultiTaskContinualClassifier(ContinualClassifier, MultiTaskModule):
    """A ``ContinualClassifier`` whose head takes task labels, which Avalanche's strategies then pass.

    Shapes: images [B, C, H, W], task labels [B] (or one int for all) -> logits [B, classes]; without task labels, those
    of each task by its label.
    """

    def forward(self, images: Tensor, task_labels: Tensor | int | None) -> Any:  # type: ignore[override]
        """Return the logits of ``images``, floats in [0, 1]; a head that takes no task labels is given none."""
        features = self.features(images)
        return self.head(features, task_labels) if isinstance(self.head, MultiTaskModule) else self.head(features)

    def forward_single_task(self, images: Tensor, task_label: int) -> Tensor:
        """Return the logits of ``images``, all of one task."""
        return self(images, task_label)

    def forward_all_tasks(self, images: Tensor) -> dict[int, Tensor]:
        """Return the logits of ``images`` in each task."""
        return self(images, None)
