"""Dark experience replay: stored images keep the logits that the model gave when it had learned them."""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn.functional import mse_loss, pad

from ftp_cl.models.heads import MASK_VALUE
from ftp_cl.models.imprinting import evaluating, random_state_kept


def logit_distance(logits: Tensor, stored: Tensor) -> Tensor:
    """Mean squared difference over the logits that were trained when they were stored; 0-d.

    Args:
        logits: [B, C] of now.
        stored: [B, C'], C' <= C; `MASK_VALUE` where a class was not trained then.
    """
    then = stored > MASK_VALUE
    return mse_loss(logits[:, : stored.shape[1]][then], stored[then])


class DarkExperienceReplay(SupervisedPlugin[Any]):
    """Replays stored images with a loss on their labels and on the logits that they had: DER++.

    Buzzega, Boschi, Porrello, Abati, Calderara, "Dark Experience for General Continual Learning", NeurIPS 2020, arXiv
    2004.07211, equation 6: loss + alpha * mean squared difference of logits + beta * cross-entropy, both on one batch
    of stored images. Images are chosen when an experience ends, equally many of each class, and logits are taken then,
    under evaluation transforms, as in Avalanche's strategy DER; the paper samples along the stream. Avalanche's needs a
    head that has all classes from the start; here logits of classes that came later are compared with nothing.

    Args:
        mem_size: stored images in all.
        alpha: factor of the squared difference.
        beta: factor of the criterion on the labels; 0 is DER.
        batch_size: stored images an iteration; None: as many as new ones.

    Attributes:
        memory: for each class its images (a dataset) and their logits [n, classes].

    Raises:
        ValueError: for a negative factor, or no room for images.
    """

    def __init__(
        self, mem_size: int = 200, alpha: float = 0.1, beta: float = 0.5, batch_size: int | None = None
    ) -> None:
        super().__init__()
        if mem_size < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError(f"mem_size={mem_size} and batch_size={batch_size} must be at least 1.")
        if alpha < 0 or beta < 0:
            raise ValueError(f"alpha={alpha} and beta={beta} must both be at least 0.")
        self.mem_size, self.alpha, self.beta, self.batch_size = mem_size, alpha, beta, batch_size
        self.memory: dict[int, tuple[Any, Tensor]] = {}

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the loss on a batch of stored images, in a forward pass of its own."""
        if not self.memory:
            return
        images, targets, stored = self._draw(self.batch_size or strategy.train_mb_size)
        logits = strategy.model(images.to(strategy.device))
        strategy.loss += self.alpha * logit_distance(logits, stored.to(strategy.device))
        if self.beta:
            strategy.loss += self.beta * strategy._criterion(logits, targets.to(strategy.device))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Store images of the new classes, and make room for them."""
        dataset = strategy.experience.dataset
        targets = torch.tensor([int(target) for target in dataset.targets])
        classes = targets.unique().tolist()
        share = self.mem_size // len({*self.memory, *classes})
        for label, (kept, stored) in self.memory.items():
            self.memory[label] = (kept.subset(range(min(share, len(kept)))), stored[:share])
        for label in classes:
            own = (targets == label).nonzero().flatten()
            chosen = dataset.subset(own[torch.randperm(len(own))[:share]].tolist())
            if len(chosen):
                self.memory[label] = (chosen, _logits(strategy, chosen.eval()))

    def _draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images, targets and logits of stored images, drawn with replacement."""
        places = [(label, i) for label, (kept, _) in self.memory.items() for i in range(len(kept))]
        drawn = [places[i] for i in torch.randint(len(places), (count,)).tolist()]
        images = torch.stack([self.memory[label][0][i][0] for label, i in drawn])
        logits = [self.memory[label][1][i] for label, i in drawn]
        width = max(map(len, logits))
        padded = torch.stack([pad(row, (0, width - len(row)), value=MASK_VALUE) for row in logits])
        return images, torch.tensor([label for label, _ in drawn]), padded


@torch.no_grad()
def _logits(strategy: Any, dataset: Any) -> Tensor:
    images = torch.stack([dataset[i][0] for i in range(len(dataset))])
    with random_state_kept(strategy.device), evaluating(strategy.model):
        return torch.cat([strategy.model(part.to(strategy.device)).cpu() for part in images.split(64)])
