"""How good pseudo-labels are, judged by someone who has the true labels."""

from torch import Tensor


def pseudo_label_quality(labels: Tensor, used: Tensor, true_labels: Tensor) -> tuple[float, float | None]:
    """Return the share of pseudo-labels that are used, and the share of these that are right (their precision).

    Both as in the analyses of FixMatch and FlexMatch (there: mask rate and pseudo-label accuracy).

    Args:
        labels: pseudo-labels [N], N above 0.
        used: whether each was used [N].
        true_labels: [N].

    Returns:
        Both in percent; the precision is None if none is used.

    Raises:
        ValueError: if the lengths differ or are 0.
    """
    if not len(labels) == len(used) == len(true_labels) > 0:
        raise ValueError(
            f"There are {len(labels)} pseudo-labels, {len(used)} marks and {len(true_labels)} true labels: they must "
            "be equally many, and some."
        )
    chosen = used.bool()
    right = (labels == true_labels)[chosen]
    share = 100 * chosen.double().mean().item()
    return share, 100 * right.double().mean().item() if len(right) else None
