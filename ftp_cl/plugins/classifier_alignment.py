"""SLCA's classifier alignment: the head is trained once more, on features drawn from a Gaussian of each class."""

import copy
from collections import Counter
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from ftp_cl.models import ContinualClassifier
from ftp_cl.plugins.prototypes import experience_features
from ftp_cl.plugins.stages import PartsDone, experiences_trained_on, refuse_hidden


class ClassifierAlignment(SupervisedPlugin[Any]):
    """After each experience, trains a copy of the head on features drawn for all classes seen; evaluations use it.

    Zhang, Wang, Kang, Chen, Wei, "SLCA: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained
    Model", ICCV 2023, arXiv 2303.05118, section 3.3. Heads of experiences that were trained apart do not agree on the
    scale of their logits; drawn features of all classes together make them. When a class is learned, the mean and
    covariance of its features are kept, at most D vectors of length D, and no image. As in the published code, means of
    earlier experiences are shrunk, 0.9 + 0.1 t / T for the t-th of T; the loss divides logits by the mean over
    experiences of their norm, times the temperature; SGD with momentum 0.9, weight decay 5e-4 and a cosine schedule
    takes one batch for each class an epoch; and the next experience goes on with the head as it was before.

    The other half of SLCA is a low learning rate of the backbone, or a projection.

    Args:
        epochs: of the alignment; 5 as published.
        samples: features drawn for each class an epoch, and the size of a batch; 256 as published.
        lr: of the alignment; 0.01 as published.
        temperature: of the normalised logits; 0.1 as published.

    Raises:
        ValueError: for a number that is not positive; when training starts, in an online stream that shows no
            boundaries, or for a class with one image only, which has no covariance.
        TypeError: when training starts, if the model is no `ContinualClassifier`.
    """

    _noise = 1e-2  # standard deviation; the published code adds 1e-4 to the diagonal of each covariance
    _oldest = 0.9  # means of the first experience are scaled by little more than this, those of the last by 1
    _begins_with = 2  # experiences

    def __init__(self, epochs: int = 5, samples: int = 256, lr: float = 0.01, temperature: float = 0.1) -> None:
        super().__init__()
        self.epochs, self.samples, self.lr, self.temperature = epochs, samples, lr, temperature
        for name in ("epochs", "samples", "lr", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0.")
        self._gaussians: dict[int, tuple[Tensor, Tensor]] = {}
        self._experiences: list[list[int]] = []
        self._aligned: nn.Module | None = None
        self._own_head: Any = None
        self._parts = PartsDone()

    # ---- Avalanche's hooks ------------------------------------------------------------------------------------------

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Give the model its own head back, before it grows and enters the optimizer."""
        name = type(self).__name__
        if not isinstance(strategy.model, ContinualClassifier):
            raise TypeError(
                f"{name} needs a ContinualClassifier of ftp_cl.models, not {type(strategy.model).__name__}."
            )
        refuse_hidden(strategy.experience, name)
        if self._own_head is not None:
            strategy.model.head, self._own_head = self._own_head, None
        self._aligned = None
        self._parts.begin(strategy.experience)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a class of one image now, and not when all is trained."""
        counts = Counter(int(label) for each in experiences_trained_on(strategy) for label in each.dataset.targets)
        if single := sorted(label for label, count in counts.items() if count == 1):
            raise ValueError(
                f"Class {single[0]} has one training image, and {type(self).__name__} needs two for a covariance."
            )

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take in the classes of this experience, and align a copy of the head."""
        found = experience_features(strategy) if self._parts.end(strategy.experience) else None
        if found is None:
            return
        features, targets = found
        classes = targets.unique().tolist()
        self._move_earlier(features)
        for label in classes:
            self._gaussians[label] = gaussian(features[targets == label])
        self._experiences = [*([c for c in old if c not in classes] for old in self._experiences), classes]
        self._experiences = [old for old in self._experiences if old]
        if len(self._experiences) >= self._begins_with:
            self._aligned = self._align(copy.deepcopy(strategy.model.head).eval())

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Put the aligned head in place; evaluations in the middle of training are the model's own."""
        if self._aligned is not None and self._own_head is None:
            strategy.model.head, self._own_head = self._aligned, strategy.model.head

    # ---- checkpoints of ftp_cl's runs -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The Gaussians and the aligned head; checkpoints are written when the model has its own head."""
        return {
            "gaussians": dict(self._gaussians),
            "experiences": [list(classes) for classes in self._experiences],
            "aligned": None if self._aligned is None else dict(self._aligned.state_dict()),
            "parts": self._parts.count,
        }

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave, for a strategy whose model is as it was then."""
        self._gaussians, self._experiences = dict(state["gaussians"]), [list(c) for c in state["experiences"]]
        self._parts.count = state["parts"]
        if state["aligned"] is not None:
            self._aligned = copy.deepcopy(strategy.model.head).eval()
            self._aligned.load_state_dict(state["aligned"])

    # ---- how --------------------------------------------------------------------------------------------------------

    def _move_earlier(self, features: Tensor) -> None:
        """For subclasses whose Gaussians follow the backbone; features [N, D] of this experience, in its order."""

    @torch.enable_grad()
    def _align(self, head: nn.Module) -> nn.Module:
        parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
        optimizer, schedule = self._optimizer(parameters)
        generator = torch.Generator().manual_seed((torch.initial_seed() + len(self._experiences)) % 2**63)
        for _ in range(self.epochs):
            features, targets = self._drawn(generator)
            order = torch.randperm(len(targets), generator=generator)
            for batch in order.split(self._batch_size()):
                logits = head(features[batch].to(parameters[0]))
                loss = self._loss(logits, targets[batch].to(logits.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
        return head

    def _optimizer(self, parameters: list[nn.Parameter]) -> tuple[Optimizer, LRScheduler]:
        optimizer = torch.optim.SGD(parameters, lr=self.lr, momentum=0.9, weight_decay=5e-4)
        return optimizer, CosineAnnealingLR(optimizer, self.epochs)

    def _batch_size(self) -> int:
        return self.samples

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits [B, classes] and the positions [B] among the classes seen that `_drawn` gives."""
        return functional.cross_entropy(self._normalised(logits), targets)

    def _drawn(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features [N, D] of all classes seen, and their positions [N] among the columns of `_normalised`."""
        features = []
        for number, classes in enumerate(self._experiences, 1):
            scale = self._oldest + (1 - self._oldest) * number / len(self._experiences)
            for label in classes:
                mean, factor = (part.cpu() for part in self._gaussians[label])
                along = torch.randn(self.samples, len(factor), generator=generator) @ factor
                features.append(scale * mean + along + self._noise * torch.randn(along.shape, generator=generator))
        return torch.cat(features), torch.arange(len(features)).repeat_interleave(self.samples)

    def _normalised(self, logits: Tensor) -> Tensor:
        """Columns of the classes seen, by experience, of length 1 on average over experiences, over the temperature."""
        groups = [logits[:, classes] for classes in self._experiences]
        lengths = torch.stack([torch.linalg.vector_norm(group, dim=1) for group in groups]).mean(dim=0)
        return torch.cat(groups, dim=1) / (lengths.clamp_min(1e-7) * self.temperature)[:, None]


def gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] of features [N, D] of a class, and F [min(N, D), D] with F^T F their covariance, in float32; N > 1."""
    features = features.float()
    mean = features.mean(dim=0)
    return mean, torch.linalg.qr(features - mean, mode="r").R / (len(features) - 1) ** 0.5
