"""Dark experience replay: stored images keep the logits that the model gave when it had learned them."""

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.core import SupervisedPlugin
from avalanche.models.utils import avalanche_forward, is_multi_task_module
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pad_sequence

from ftp_cl.models.heads import MASK_VALUE
from ftp_cl.models.imprinting import evaluating, random_state_kept
from ftp_cl.plugins.stages import PartsDone, experiences_trained_on, joined, refuse_inner_updates


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
    2004.07211, equation 6: loss + alpha * mean squared difference of logits + beta * cross-entropy. Both are on one
    batch of stored images, where Algorithm 2 of the paper draws one for each. Images are chosen when an experience
    ends, equally many of each class and each image of a class with equal chances, whenever it came; their logits are
    taken then, under evaluation transforms, as in Avalanche's strategy DER. The paper samples along the stream.
    Avalanche's needs a head that has all classes from the start; here logits of classes that came later are compared
    with nothing. A model that takes task labels gets those of the stored images, and a class is then one of its task.

    Args:
        mem_size: stored images in all. With more classes than that, those that came last have none.
        alpha: factor of the squared difference.
        beta: factor of the criterion on the labels; 0 is DER.
        batch_size: stored images an iteration; None: as many as new ones.

    Attributes:
        memory: for each class, or pair of task and class, its images (a dataset) and their logits [n, classes].

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
        self.memory: dict[Any, tuple[Any, Tensor]] = {}
        self._met: dict[Any, int] = {}  # images of each class so far
        self._parts = PartsDone()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """See which part of an experience this is."""
        refuse_inner_updates(strategy, "DarkExperienceReplay")
        self._parts.begin(strategy.experience)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the loss on a batch of stored images, in a forward pass of its own."""
        if not self.memory:
            return
        images, targets, tasks, stored = self._draw(self.batch_size or strategy.train_mb_size)
        logits = avalanche_forward(strategy.model, images.to(strategy.device), tasks.to(strategy.device))
        strategy.loss += self.alpha * logit_distance(logits, stored.to(strategy.device))
        if self.beta:
            strategy.loss += self.beta * strategy._criterion(logits, targets.to(strategy.device))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Store images of this experience, and make room for them."""
        experiences = experiences_trained_on(strategy)
        if not (self._parts.end(strategy.experience, if_hidden=True) and experiences):
            return
        dataset = joined(experiences)
        labels: list[Any] = [int(target) for target in dataset.targets]
        if is_multi_task_module(strategy.model):  # which has heads for tasks: ids may begin anew in each
            labels = list(zip((int(task) for task in dataset.targets_task_labels), labels, strict=True))
        own: dict[Any, list[int]] = {label: [] for label in self._met}
        for index, label in enumerate(labels):
            own.setdefault(label, []).append(index)
        each, left_over = divmod(self.mem_size, len(own))
        for place, (label, indices) in enumerate(own.items()):
            old, new = self._choose(label, indices, room=each + (place < left_over))
            images: list[Any] = []
            logits: list[Tensor] = []
            if old:
                kept, stored = self.memory[label]
                images.append(kept.subset(range(old)))
                logits += stored[:old]
            if new:
                images.append(dataset.subset(new))
                logits += _logits(strategy, images[-1].eval())
            self.memory.pop(label, None)
            if images:
                self.memory[label] = concat_datasets(images), _of_one_width(logits)
            self._met[label] = self._met.get(label, 0) + len(indices)

    def _choose(self, label: Any, indices: list[int], room: int) -> tuple[int, list[int]]:
        """How many stored images of a class stay, and which of this experience's join them: each with equal chances."""
        met, stored = self._met.get(label, 0), len(self.memory[label][0]) if label in self.memory else 0
        drawn = torch.randperm(met + len(indices)).tolist()  # numbers below `met` stand for earlier images
        old = min(stored, sum(number < met for number in drawn[:room]))
        return old, [indices[number - met] for number in drawn if number >= met][: room - old]

    def _draw(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, targets, task labels and logits of stored images, drawn with replacement."""
        places = [(label, i) for label, (kept, _) in self.memory.items() for i in range(len(kept))]
        drawn = [places[i] for i in torch.randint(len(places), (count,)).tolist()]
        images, targets, tasks = _stacked([self.memory[label][0][i] for label, i in drawn])
        logits = [self.memory[label][1][i] for label, i in drawn]
        return images, targets, tasks, _of_one_width(logits)


def _stacked(items: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, targets and task labels, which come last in Avalanche's items, if at all."""
    targets, tasks = ([int(item[place]) for item in items] for place in (1, -1))
    return torch.stack([item[0] for item in items]), torch.tensor(targets), torch.tensor(tasks)


def _of_one_width(logits: Sequence[Tensor]) -> Tensor:
    """Logits [classes] of images below each other; classes that came later count as not trained."""
    return pad_sequence(list(logits), batch_first=True, padding_value=MASK_VALUE)


@torch.no_grad()
def _logits(strategy: Any, dataset: Any) -> Tensor:
    """Logits of images of one class; a task's own head is asked alone, without the columns of wider ones."""
    images, _, tasks = _stacked([dataset[i] for i in range(len(dataset))])
    task = int(tasks[0])
    with random_state_kept(strategy.device), evaluating(strategy.model):
        parts = [avalanche_forward(strategy.model, part.to(strategy.device), task).cpu() for part in images.split(64)]
    return torch.cat(parts)
