"""Projection of a finished change, once: radii learned afterwards instead of along the way.

The model is TPGM at the end of fine-tuning (Trainable Projected Gradient Method, arXiv 2303.10720). Because the change
stays fixed here, the derivative of the loss by a radius is exact and costs one forward and one backward pass.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ftp_cl.projection.radius import SMALLEST_RADIUS
from ftp_cl.projection.rows import gathered, per_row, row_dots, row_norms, summary_of_rows


def project_post_hoc(
    weights: Mapping[str, nn.Parameter],
    anchor: Mapping[str, Tensor],
    next_loss: Callable[[], Tensor],
    *,
    iterations: int = 50,
    mu: float = 1e-2,
) -> dict[str, dict[str, float]]:
    """Replace each tensor's weights by W0 + min(1, gamma / n_r(c)) c, with c = W~ - W0 fixed and gamma learned.

    gamma starts at 1e-8, so that all rows are active, and takes Adam steps along its exact derivative, the sum over
    active rows (those longer than gamma) of <g_r, c_r> / n_r(c), with g taken at the projected weights.

    Args:
        weights: the tensors to project, by name; changed in place. No `.grad` is touched.
        anchor: W0 of each, in the same shape.
        next_loss: computes the model's loss on the next batch, as a tensor to be differentiated.
        iterations: number of batches used. A radius can reach at most about mu times as much.
        mu: Adam's step size for the radii, in units of a row's L1 norm; 1e-2 as in FTP and TPGM.

    Returns:
        For each tensor that had changed what `FTP.summary` gives: radius, distances, share of rows at the boundary.

    Raises:
        ValueError: if iterations is below 1, or the loss of some batch is not finite; weights are then as before.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations} learns no radius: it must be at least 1.")
    changes = {name: weight.detach() - anchor[name] for name, weight in weights.items()}
    norms = {name: row_norms(change) for name, change in changes.items()}
    names = [name for name in weights if changes[name].numel() and changes[name].any()]
    largest = torch.tensor(gathered([norms[name].max() for name in names]).tolist() if names else [])
    radii = torch.full((len(names),), SMALLEST_RADIUS)
    adam = torch.optim.Adam([radii], lr=mu)
    for _ in range(iterations if names else 0):
        _place(weights, anchor, changes, norms, dict(zip(names, radii.tolist(), strict=True)))
        loss = next_loss()
        if not torch.isfinite(loss):
            _place(weights, anchor, changes, norms, dict(zip(names, largest.tolist(), strict=True)))
            raise ValueError("The loss on the data for the radii is not finite; the weights were left as trained.")
        gradients = torch.autograd.grad(loss, [weights[name] for name in names], allow_unused=True)
        derivatives = [
            _derivative(gradient, changes[name], norms[name], radius)
            for name, gradient, radius in zip(names, gradients, radii.tolist(), strict=True)
        ]
        radii.grad = torch.tensor(gathered(derivatives).tolist())
        adam.step()
        torch.minimum(radii.clamp_(min=SMALLEST_RADIUS), largest, out=radii)
    learned = dict(zip(names, radii.tolist(), strict=True))
    _place(weights, anchor, changes, norms, learned)
    return {
        name: summary_of_rows(radius, norms[name].clamp(max=radius), norms[name] > radius)
        for name, radius in learned.items()
    }


@torch.no_grad()
def _place(
    weights: Mapping[str, nn.Parameter],
    anchor: Mapping[str, Tensor],
    changes: Mapping[str, Tensor],
    norms: Mapping[str, Tensor],
    radii: Mapping[str, float],
) -> None:
    """Set the weights to the projection of their change onto balls of the given radii."""
    for name, radius in radii.items():
        ratio = per_row((radius / norms[name]).clamp_(max=1.0), changes[name])
        torch.addcmul(anchor[name], changes[name], ratio, out=weights[name])


def _derivative(gradient: Tensor | None, change: Tensor, norms: Tensor, radius: float) -> Tensor:
    """The exact derivative of the loss by the radius, 0-d: rows inside the ball do not move with it."""
    if gradient is None:
        return norms.new_zeros(())
    return (row_dots(gradient, change) / norms)[norms > radius].sum()
