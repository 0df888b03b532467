"""Weak and strong random views of an image: float tensors [C, H, W] in [0, 1] in and out.

Views are made from what the benchmark's evaluation transforms give, not from the source's PIL images: so they work with
every benchmark whose images are tensors, and do not repeat a crop that the benchmark's own transforms make. RandAugment
itself runs on 8-bit images, as published.
"""

import torch
from torch import Tensor
from torchvision.transforms import v2

_GREY = 127


class WeakView:
    """A random horizontal flip, and a shift with mirrored borders.

    The weak augmentation of FixMatch (arXiv 2001.07685, section 2.2).

    Args:
        flip: mirror half of the images; switch it off for digits and letters.
        crop: largest shift, as share of each side; 0.125 as published, 0 for none.

    Raises:
        ValueError: if ``crop`` is not in [0, 0.5].
    """

    def __init__(self, flip: bool = True, crop: float = 0.125) -> None:
        if not 0 <= crop <= 0.5:
            raise ValueError(f"crop={crop} must be a share of the side from 0 to 0.5.")
        self.flip = flip
        self.crop = crop

    def __call__(self, image: Tensor) -> Tensor:
        """Return another view each time, by torch's global generator."""
        if self.flip and torch.rand(()) < 0.5:
            image = v2.functional.horizontal_flip(image)
        height, width = image.shape[-2:]
        down, right = round(self.crop * height), round(self.crop * width)
        if not (down or right):
            return image
        padded = v2.functional.pad(image, [right, down], padding_mode="reflect")
        top, left = int(torch.randint(2 * down + 1, ())), int(torch.randint(2 * right + 1, ()))
        return v2.functional.crop(padded, top, left, height, width)


class StrongView:
    """A weak view, RandAugment (Cubuk et al. 2020, arXiv 1909.13719), and a grey square (Cutout).

    FixMatch draws each operation's strength anew; torchvision's RandAugment has one ``magnitude`` for all.

    Args:
        weak: what comes first; ``WeakView()`` if None.
        num_ops: operations of RandAugment; 2 as published.
        magnitude: their strength, 0 to 30; 9 is torchvision's.
        cutout: largest side of the square, as share of the image's; 0.5 as published, 0 for none.

    Raises:
        ValueError: for a value out of range, or, when called, an image outside [0, 1].
    """

    def __init__(self, weak: WeakView | None = None, num_ops: int = 2, magnitude: int = 9, cutout: float = 0.5) -> None:
        if not 0 <= magnitude <= 30:
            raise ValueError(f"magnitude={magnitude} must lie between 0 and 30.")
        if not 0 <= cutout < 1:
            raise ValueError(f"cutout={cutout} must be a share of the side from 0 to below 1.")
        self.weak = WeakView() if weak is None else weak
        self._augment = v2.RandAugment(num_ops, magnitude, fill=_GREY)
        self._cutout = v2.RandomErasing(p=float(cutout > 0), scale=(0, cutout**2), ratio=(1, 1), value=_GREY / 255)

    def __call__(self, image: Tensor) -> Tensor:
        """Return another view each time, by torch's global generator."""
        if image.min() < 0 or image.max() > 1:
            raise ValueError(
                f"Strong views need images in [0, 1], got {image.min():.3g} to {image.max():.3g}: normalise inside the "
                "model, not in the transforms."
            )
        pixels = (255 * self.weak(image)).round().to(torch.uint8)
        return self._cutout(self._augment(pixels).to(image.dtype) / 255)
