"""How good pseudo-labels are, judged by someone who has the true labels."""

import numpy as np
from numpy.typing import ArrayLike


def pseudo_label_quality(
    labels: ArrayLike, used: ArrayLike, true_labels: ArrayLike | None
) -> tuple[float, float | None]:
    """Return the share of pseudo-labels that are used, and the share of these that are right (their precision).

    Both as in the analyses of FixMatch and FlexMatch (there: mask rate and pseudo-label accuracy).

    Args:
        labels: pseudo-labels [N], N above 0.
        used: whether each was used [N].
        true_labels: [N]; None if nobody knows them.

    Returns:
        Both in percent; the precision is None if none is used, or none can be judged.

    Raises:
        ValueError: if the lengths differ or are 0.
    """
    found, chosen = np.asarray(labels), np.asarray(used).astype(bool)
    truth = found if true_labels is None else np.asarray(true_labels)
    if not len(found) == len(chosen) == len(truth) > 0:
        raise ValueError(
            f"There are {len(found)} pseudo-labels, {len(chosen)} marks and {len(truth)} true labels: they must be "
            "equally many, and some."
        )
    right = (found == truth)[chosen]
    precision = None if true_labels is None or not len(right) else 100 * float(right.mean())
    return 100 * float(chosen.mean()), precision
