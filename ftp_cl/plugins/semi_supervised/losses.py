"""What semi-supervised methods minimise on unlabelled images: functions of logits, without Avalanche.

Shapes: logits [B, C], labels [B] (column of the logits), used [B] (bool or 0/1); losses are scalars.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

_SMALLEST_PROBABILITY = 1e-12  # as in the code published with FreeMatch


def pseudo_label_loss(logits: Tensor, labels: Tensor, used: Tensor) -> Tensor:
    """Cross-entropy with pseudo-labels, summed over those that are used and divided by the whole batch.

    1 / B * sum_b used_b * H(labels_b, softmax(logits_b)). FixMatch, eq. 4 (Sohn et al. 2020, arXiv 2001.07685), with
    logits of the strong view; Lee 2013, eq. 15, with all used. Dividing by B, not by how many are used, makes few
    confident labels weigh little.
    """
    return (functional.cross_entropy(logits, labels, reduction="none") * used).mean()


def consistency_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two predictions' probabilities, over images and classes; the teacher is a constant.

    Mean Teacher, section 3 (Tarvainen and Valpola 2017, arXiv 1703.01780).
    """
    return functional.mse_loss(student.softmax(1), teacher.detach().softmax(1))


def fairness_loss(logits: Tensor, used: Tensor, mean_probability: Tensor, label_share: Tensor) -> Tensor:
    """Pull the strong views' mean prediction towards the model's own, both divided by how often a class is predicted.

    - H(SumNorm(p / h), SumNorm(p_batch / h_batch)), where p_batch is the mean probability of the strong views that are
    used, h_batch the histogram of their predictions, and H(a, b) = - sum a log b. FreeMatch, section 4.2 (Wang et al.
    2023, arXiv 2205.07246). Classes that a histogram lacks count as 0, as in the published code.

    Args:
        logits: of the strong views.
        used: which of them count; 0 is returned if none.
        mean_probability: running mean [C] of the weak views' probabilities, p.
        label_share: running histogram [C] of the weak views' predictions, sums to 1, h.
    """
    chosen = logits[used.bool()].softmax(1)
    if not len(chosen):
        return logits.new_zeros(())
    histogram = torch.bincount(chosen.argmax(1), minlength=logits.shape[1]) / len(chosen)
    target = _normalized(mean_probability, label_share)
    prediction = _normalized(chosen.mean(0), histogram.to(chosen))
    return (target.detach() * (prediction + _SMALLEST_PROBABILITY).log()).sum()


def _normalized(probability: Tensor, share: Tensor) -> Tensor:
    """SumNorm(probability / share), with 0 where the share is 0."""
    ratio = torch.where(share > 0, probability / share.clamp_min(_SMALLEST_PROBABILITY), torch.zeros_like(probability))
    return ratio / ratio.sum()


def linear_ramp(progress: float, start: float, end: float) -> float:
    """0 until ``start``, 1 from ``end`` on, linear between; Lee 2013, eq. 16.

    Args:
        progress: share of training that is done, 0 to 1.
        start: share at which it begins to rise.
        end: share at which it is 1.
    """
    if progress >= end:
        return 1.0
    return max(0.0, (progress - start) / (end - start))


def sigmoid_ramp(progress: float, end: float) -> float:
    """exp(-5 (1 - progress / end)^2) until ``end``, then 1; Mean Teacher, appendix B.1."""
    return 1.0 if progress >= end else math.exp(-5 * (1 - progress / end) ** 2)
