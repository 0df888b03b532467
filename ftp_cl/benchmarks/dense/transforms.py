"""Transforms of an image together with its mask or its surface normals, on torchvision's tv_tensors."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

Transform = Callable[..., Any]


class Normals(tv_tensors.TVTensor):
    """Surface normals [..., 3, H, W]: x to the right, y, z; of length 1, and 0 where unknown.

    torchvision's v2 transforms mirror, cut, pad and resize them: x is negated when left and right change places, y when
    top and bottom do, lengths are 1 again after resizing, pixels stay unknown, and what is padded is unknown. What
    turns or bends images is refused.
    """

    def __new__(cls, data: Any) -> "Normals":
        """Wrap a tensor."""
        return cls._to_tensor(data, dtype=None, device=None, requires_grad=None).as_subclass(cls)


def _normals(function: Any) -> Callable[[Transform], Transform]:
    """Register what a functional of torchvision does to normals; it gets and returns `Normals`."""

    def register(kernel: Transform) -> Transform:
        def wrapped(normals: Any, *args: Any, **options: Any) -> Normals:
            return Normals(kernel(normals.as_subclass(Tensor), *args, **options))

        v2.functional.register_kernel(function, Normals)(wrapped)
        return kernel

    return register


@_normals(v2.functional.horizontal_flip)
def _mirrored(normals: Tensor) -> Tensor:
    # 0 - x: -x would turn the zeros of unknown pixels into negative ones.
    x, others = normals.flip(-1).split([1, 2], dim=-3)
    return torch.cat([0 - x, others], dim=-3)


@_normals(v2.functional.vertical_flip)
def _upside_down(normals: Tensor) -> Tensor:
    x, y, z = normals.flip(-2).split(1, dim=-3)
    return torch.cat([x, 0 - y, z], dim=-3)


@_normals(v2.functional.pad)
def _padded(normals: Tensor, padding: int | Sequence[int], fill: Any = None, padding_mode: str = "constant") -> Tensor:
    return v2.functional.pad(normals, padding if isinstance(padding, int) else list(padding))


@_normals(v2.functional.resize)
def _resized(normals: Tensor, size: Any, interpolation: Any = None, max_size: Any = None, **_: Any) -> Tensor:
    batch = normals[None] if normals.ndim == 3 else normals
    known = (batch != 0).any(dim=-3, keepdim=True).to(batch)
    mean = v2.functional.resize(batch, size, max_size=max_size, antialias=False)
    unit = functional.normalize(mean, dim=-3) * functional.interpolate(known, mean.shape[-2:], mode="nearest-exact")
    return unit[0] if normals.ndim == 3 else unit


@_normals(v2.functional.resized_crop)
def _cropped_and_resized(normals: Tensor, top: int, left: int, height: int, width: int, size: Any, **_: Any) -> Tensor:
    return _resized(v2.functional.crop(normals, top, left, height, width), size)


# What these do to any tensor is right for normals, too.
for _cutting in (v2.functional.crop, v2.functional.center_crop):
    _normals(_cutting)(_cutting)


def _refused(*args: Any, **options: Any) -> Tensor:
    raise TypeError("Normals cannot be turned or bent: mirror, cut, pad or resize them.")


# torchvision leaves a target as it is for which nothing is registered.
for _bending in ("rotate", "affine", "perspective", "elastic", "five_crop", "ten_crop"):
    _normals(getattr(v2.functional, _bending))(_refused)


class JointTransform:
    """Applies a v2 transform of torchvision to an image and its target as one: for Avalanche's transform groups.

    Args:
        transform: takes and returns a tv_tensors.Image and a tv_tensors.Mask or `Normals`.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, image: Tensor, target: Any) -> tuple[Tensor, Any]:
        """Return both, changed alike.

        Args:
            image: float [3, H, W].
            target: class indices [H, W] or normals [3, H, W]; anything else, as the label of a hidden target, is left.
        """
        if not isinstance(target, Tensor):
            return self.transform(tv_tensors.Image(image)).as_subclass(Tensor), target
        wrapped: Any = tv_tensors.Mask(target) if target.ndim == 2 else Normals(target)
        changed = self.transform(tv_tensors.Image(image), wrapped)
        return changed[0].as_subclass(Tensor), changed[1].as_subclass(Tensor)


class WeakJointView:
    """Mirrors half of the images, and shifts each by up to an eighth of its sides, as `WeakView`, with its target.

    Borders are mirrored; where normals would have to be, they are unknown.

    Args:
        flip: mirror half of the images.
    """

    def __init__(self, flip: bool = True) -> None:
        self.flip = flip

    def __call__(self, image: Tensor, target: Any) -> tuple[Tensor, Any]:
        """Return another view each time, by torch's global generator."""
        height, width = image.shape[-2:]
        steps: list[Any] = [v2.RandomHorizontalFlip()] if self.flip else []
        steps += [v2.Pad([width // 8, height // 8], padding_mode="reflect"), v2.RandomCrop((height, width))]
        return JointTransform(v2.Compose(steps))(image, target)


def resized(image: Tensor, target: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize an image with antialiasing, and its mask by nearest neighbour or its normals.

    Args:
        image: float [3, H, W].
        target: class indices [H, W] or normals [3, H, W].
        size: height and width.
    """
    return JointTransform(v2.Resize(size, antialias=True))(image, target)
