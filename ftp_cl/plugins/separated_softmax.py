"""New classes compete with each other, not with those of earlier experiences whose images are absent."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ftp_cl.models.heads import live_classes
from ftp_cl.plugins.stages import classes_trained_on, has_hidden_boundaries

_IGNORED = -100  # as torch's criteria have it


class SeparatedCriterion(nn.Module):
    """A criterion in whose softmax the current classes and all other classes are apart.

    An image of a current class is compared with current classes only; one of an earlier class (from a replay buffer)
    with all classes that are not current. Separated softmax: Ahn et al., "SS-IL", ICCV 2021, arXiv 2003.13947. Without
    stored images the loss is that of rehearsal-free methods, which mask the logits of earlier tasks in training.

    `criterion` sees no other logits: label smoothing, say, is over the classes that compete. Targets are renumbered,
    class weights (`weight`, `pos_weight`) are cut, and `reduction` is over the whole batch. A criterion without a
    `reduction` that returns one number is taken for a mean over images.

    Shapes: logits [B, classes], targets [B] of class ids or [B, classes] of shares (mixup) -> what `criterion` returns.
    An image that two groups share has with `nn.CrossEntropyLoss` the mean of both losses, weighted by its shares.

    Args:
        criterion: of logits and targets, such as `nn.CrossEntropyLoss()`.

    Attributes:
        current: indices of the current classes; empty: the groups of `others` alone.
        others: groups of further classes; None: one of all that are not current.

    Raises:
        ValueError: in `forward`, for shares that are not one for each logit, or are those of two groups with another
            criterion, or class weights for too few classes.
    """

    _groups_before: tuple[Any, tuple[Tensor, Tensor]] | None = None

    def __init__(self, criterion: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.criterion = criterion
        self.current: list[int] = []
        self.others: list[list[int]] | None = None

    def begin(self, classes: Iterable[int], others: Iterable[Iterable[int]] | None = None) -> None:
        """Make these the current classes.

        Args:
            classes: class ids; none between experiences.
            others: classes that were trained, in groups that are told apart by task labels. What is in none has masked
                logits, which nothing is compared with. None: all classes, one group.
        """
        self.current = sorted(classes)
        self.others = None if others is None else [sorted(group) for group in others]

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss; no logit of another group gets a gradient."""
        if not self.current and self.others is None:
            return self.criterion(logits, targets)
        owner, columns = self._groups(logits.shape[1], logits.device)
        if targets.is_floating_point():
            if targets.shape != logits.shape:
                raise ValueError(f"shares of classes {list(targets.shape)} do not fit logits {list(logits.shape)}")
            shares = targets @ one_hot(owner, len(columns)).to(targets)
        else:
            ignored = targets == getattr(self.criterion, "ignore_index", _IGNORED)
            group = owner[targets.masked_fill(ignored, 0)]
            criterion: Any = self.criterion
            if type(criterion) is nn.CrossEntropyLoss and criterion.weight is None and not criterion.label_smoothing:
                # One pass for all groups: what is masked with -inf is left out of the softmax, to the last digit.
                return self.criterion(logits.masked_fill(~columns[group], -torch.inf), targets)
            targets = targets.masked_fill(ignored, _IGNORED)
            shares = one_hot(group, len(columns)).masked_fill(ignored[:, None], 0)
        return self._of_groups(logits, targets, shares, columns)

    def _groups(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The group that each class belongs to [classes], and the classes of each group [groups, classes].

        They stay on the device from step to step: making them there waits for it.
        """
        of = (width, device, tuple(self.current), None if self.others is None else tuple(map(tuple, self.others)))
        if self._groups_before is None or self._groups_before[0] != of:
            self._groups_before = of, self._new_groups(width, device)
        return self._groups_before[1]

    def _new_groups(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        current, *others = torch.zeros(1 + len(self.others or [()]), width, dtype=torch.bool, device=device)
        current[self.current] = True
        for number, group in enumerate(others):
            group[slice(None) if self.others is None else self.others[number]] = True
        # The last group is that of classes never trained, met in evaluations: no criterion would have another answer.
        columns = torch.stack([current, *(group & ~current for group in others), ~current])
        return columns.int().argmax(dim=0), columns

    def _of_groups(self, logits: Tensor, targets: Tensor, shares: Tensor, columns: Tensor) -> Tensor:
        present = [number for number in range(len(columns)) if shares[:, number].any()]
        if len(present) < 2:
            kept = columns[present[0]] if present else columns.any(dim=0)
            with _narrowed(self.criterion, kept):
                return self.criterion(logits[:, kept], _renumbered(targets, kept))
        entropy = isinstance(self.criterion, nn.CrossEntropyLoss)
        if not entropy and (shares.count_nonzero(dim=1) > 1).any():
            raise ValueError(
                f"an image shares current and other classes, which {type(self.criterion).__name__} cannot be applied "
                "to apart: use CrossEntropyLoss, or mix images of the same experience only"
            )
        shared = entropy and targets.is_floating_point()
        losses, reduction = [], getattr(self.criterion, "reduction", None)
        for kept, share in zip(columns[present], shares.T[present], strict=True):
            own = share > 0
            part, weight = _renumbered(targets[own], kept), share[own]
            with _narrowed(self.criterion, kept, reduction="none"):
                loss = self.criterion(logits[own][:, kept], part / weight[:, None] if shared else part)
            if loss.ndim == 0:
                loss, reduction = loss.expand(len(part)), "mean"
            elif loss.ndim > 1:
                loss = loss.flatten(1).mean(dim=1) if reduction == "mean" else loss.flatten(1).sum(dim=1)
            loss = loss * weight if shared else loss
            losses.append(loss.new_zeros(len(logits)).masked_scatter(own, loss))
        total = torch.stack(losses).sum(dim=0)
        if reduction in (None, "none"):
            return total
        if reduction == "sum":
            return total.sum()
        # As torch: by the weights of the targets that are not ignored, or the number of images.
        if targets.is_floating_point() or not isinstance(self.criterion, nn.CrossEntropyLoss | nn.NLLLoss):
            return total.sum() / len(targets)
        counted = targets[targets != _IGNORED]
        return total.sum() / (len(counted) if self.criterion.weight is None else self.criterion.weight[counted].sum())


def _renumbered(targets: Tensor, kept: Tensor) -> Tensor:
    """Targets in terms of the columns that are kept."""
    if targets.is_floating_point():
        return targets[:, kept]
    numbers = (kept.cumsum(dim=0) - 1)[targets.clamp_min(0)]
    return torch.where(targets == _IGNORED, _IGNORED, numbers)


@contextmanager
def _narrowed(criterion: Any, kept: Tensor, **settings: Any) -> Iterator[None]:
    """Meanwhile, `criterion` has the class weights of the columns that are kept, and these settings if it has them."""
    settings = {"ignore_index": _IGNORED, **settings}
    for name in ("weight", "pos_weight"):
        weight = getattr(criterion, name, None)
        if isinstance(weight, Tensor) and weight.ndim == 1:
            if len(weight) < len(kept):
                raise ValueError(f"the criterion's {name} is for {len(weight)} classes, and there are {len(kept)}")
            settings[name] = weight[: len(kept)][kept]
    before = {name: getattr(criterion, name) for name in settings if hasattr(criterion, name)}
    try:
        for name in before:
            setattr(criterion, name, settings[name])
        yield
    finally:
        for name, value in before.items():
            setattr(criterion, name, value)


class SeparatedSoftmax(SupervisedPlugin[Any]):
    """Trains each experience's classes against each other only: `Naive(..., plugins=[SeparatedSoftmax()])`.

    In a class-incremental stream the images of earlier classes are gone (or few). A softmax over all classes then
    learns above all to answer with the newest, whatever the backbone does. Evaluation is over all classes as before.
    Put it before plugins that compute losses of their own.

    The classes are those of the data that the strategy trains on, so all of them in joint training; in an online stream
    those of the experience that a mini-experience was cut from. Without task boundaries nothing is apart.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Wrap the strategy's criterion once, and tell it the classes of this experience."""
        if not isinstance(strategy._criterion, SeparatedCriterion):
            strategy._criterion = SeparatedCriterion(strategy._criterion)
        current = [] if has_hidden_boundaries(strategy.experience) else classes_trained_on(strategy)
        strategy._criterion.begin(current, live_classes(strategy.model))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Between experiences, the loss that evaluation reports is the plain one, over all classes trained so far."""
        strategy._criterion.begin([], strategy._criterion.others)
