"""The fifteen corruptions with the constants of CIFAR-10-C, which are made for images of 32 pixels.

The library that makes ImageNet-C's corruptions has its constants built in; here are the formulas again, with its
helpers (disk, fog, motion blur), for images too small for those constants. Motion blur and snow go through the
library's motion blur in place of ImageMagick's; everything else follows the published generator. Inputs and outputs are
float arrays [H, W, 3] in [0, 1] before clipping.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019, arXiv 1903.12261; constants: make_cifar_c.py of the repository hendrycks/robustness.
"""

import importlib.resources
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float64]
Random = np.random.Generator


def corrupt_small(image: Image.Image, name: str, severity: int, random: Random, library: Any) -> Image.Image:
    """Return an image in RGB corrupted with the constants of CIFAR-10-C.

    Args:
        image: in RGB, meant for 32 x 32 pixels.
        name: of ``CORRUPTIONS``.
        severity: 1 to 5.
        random: draws the noise; fog draws from NumPy's global generator, which the caller seeds.
        library: the module ``imagecorruptions.corruptions``.
    """
    function, constants = FORMULAS[name]
    corrupted = function(np.asarray(image, np.float64) / 255, constants[severity - 1], random, library)
    return Image.fromarray((np.clip(corrupted, 0, 1) * 255).astype(np.uint8))


# ---- noise -----------------------------------------------------------------------------------------------------------


def _gaussian_noise(x: Pixels, deviation: float, random: Random, library: Any) -> Pixels:
    return x + random.normal(size=x.shape, scale=deviation)


def _shot_noise(x: Pixels, photons: float, random: Random, library: Any) -> Pixels:
    return random.poisson(x * photons) / photons


def _impulse_noise(x: Pixels, share: float, random: Random, library: Any) -> Pixels:
    hit = random.random(x.shape) < share
    return np.where(hit, random.integers(0, 2, x.shape), x)


# ---- blur ------------------------------------------------------------------------------------------------------------


def _defocus_blur(x: Pixels, c: tuple[float, float], random: Random, library: Any) -> Pixels:
    return library.cv2.filter2D(x, -1, library.disk(radius=c[0], alias_blur=c[1]))


def _glass_blur(x: Pixels, c: tuple[float, int, int], random: Random, library: Any) -> Pixels:
    sigma, reach, rounds = c
    x = np.floor(library.gaussian(x, sigma=sigma, channel_axis=-1) * 255) / 255
    height, width = x.shape[:2]
    for _ in range(rounds):
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dx, dy = random.integers(-reach, reach, 2)
                # The published code means to swap the two pixels; its array views make it this copy.
                x[h, w] = x[h + dy, w + dx]
    return library.gaussian(x, sigma=sigma, channel_axis=-1)


def _motion_blur(x: Pixels, c: tuple[int, float], random: Random, library: Any) -> Pixels:
    return library._motion_blur(x, radius=c[0], sigma=c[1], angle=random.uniform(-45, 45))


def _zoom_blur(x: Pixels, farthest: float, random: Random, library: Any) -> Pixels:
    factors = np.arange(1, farthest, 0.01)
    return (x + sum(_zoom(x, factor, library) for factor in factors)) / (len(factors) + 1)


def _zoom(x: Pixels, factor: float, library: Any) -> Pixels:
    """Enlarge the middle of an array [H, W, C] to its whole size."""
    large = library.clipped_zoom(x, factor)
    top, left = ((large.shape[i] - x.shape[i]) // 2 for i in (0, 1))
    return large[top : top + x.shape[0], left : left + x.shape[1]]


# ---- weather ---------------------------------------------------------------------------------------------------------


def _snow(x: Pixels, c: tuple[float, ...], random: Random, library: Any) -> Pixels:
    mean, deviation, zoom, threshold, radius, sigma, mix = c
    layer = _zoom(random.normal(size=(*x.shape[:2], 1), loc=mean, scale=deviation), zoom, library)[..., 0]
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    layer = library._motion_blur(layer, radius=int(radius), sigma=sigma, angle=random.uniform(-135, -45))[..., None]
    grey = x @ np.array([0.299, 0.587, 0.114])
    whitened = mix * x + (1 - mix) * np.maximum(x, grey[..., None] * 1.5 + 0.5)
    return whitened + layer + np.rot90(layer, k=2)


def _frost(x: Pixels, c: tuple[float, float], random: Random, library: Any) -> Pixels:
    frost = _frost_images(library)[random.integers(5)]
    # The smallest picture has 63 rows, which is enough for the 32 of CIFAR but not for every image.
    missing = [max(0, x.shape[i] + 1 - frost.shape[i]) for i in (0, 1)]
    frost = np.pad(frost, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    top, left = (random.integers(0, frost.shape[i] - x.shape[i]) for i in (0, 1))
    return c[0] * x + c[1] * frost[top : top + x.shape[0], left : left + x.shape[1]]


@lru_cache(maxsize=1)
def _frost_images(library: Any) -> list[Pixels]:
    """Return the first five pictures of frost, a fifth of their size, as in the published generator."""
    names = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
    pictures = []
    for name in names:
        with importlib.resources.files("imagecorruptions").joinpath("frost", name).open("rb") as file:
            picture = np.asarray(Image.open(file).convert("RGB"))
        pictures.append(library.cv2.resize(picture, None, fx=0.2, fy=0.2) / 255)
    return pictures


def _fog(x: Pixels, c: tuple[float, float], random: Random, library: Any) -> Pixels:
    height, width = x.shape[:2]
    map_size = library.next_power_of_2(max(height, width))
    fog = library.plasma_fractal(mapsize=map_size, wibbledecay=c[1])[:height, :width, None]
    return (x + c[0] * fog) * x.max() / (x.max() + c[0])


def _brightness(x: Pixels, gain: float, random: Random, library: Any) -> Pixels:
    hsv = library.sk.color.rgb2hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + gain, 0, 1)
    return library.sk.color.hsv2rgb(hsv)


# ---- digital ---------------------------------------------------------------------------------------------------------


def _contrast(x: Pixels, share: float, random: Random, library: Any) -> Pixels:
    means = x.mean(axis=(0, 1), keepdims=True)
    return (x - means) * share + means


def _elastic_transform(x: Pixels, c: tuple[float, float, float], random: Random, library: Any) -> Pixels:
    shape = x.shape[:2]
    strength, sigma, shift = (min(shape) * value for value in c)
    center, arm = np.array(shape, np.float32) // 2, min(shape) // 3
    corners = center + np.array([[arm, arm], [arm, -arm], [-arm, -arm]], np.float32)
    moved = corners + random.uniform(-shift, shift, corners.shape).astype(np.float32)
    cv2 = library.cv2
    warped = cv2.warpAffine(x, cv2.getAffineTransform(corners, moved), shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
    dy, dx = (
        library.gaussian(random.uniform(-1, 1, shape), sigma, mode="reflect", truncate=3) * strength for _ in range(2)
    )
    rows, columns = np.indices(shape)
    places = [rows + dy, columns + dx]
    channels = [library.map_coordinates(warped[..., k], places, order=1, mode="reflect") for k in range(3)]
    return np.stack(channels, axis=-1)


def _pixelate(x: Pixels, share: float, random: Random, library: Any) -> Pixels:
    image = _to_image(x)
    small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX), np.float64) / 255


def _jpeg_compression(x: Pixels, quality: int, random: Random, library: Any) -> Pixels:
    output = BytesIO()
    _to_image(x).save(output, "JPEG", quality=quality)
    return np.asarray(Image.open(output), np.float64) / 255


def _to_image(x: Pixels) -> Image.Image:
    return Image.fromarray(np.round(x * 255).astype(np.uint8))


FORMULAS: dict[str, tuple[Callable[..., Pixels], tuple[Any, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (_glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": (
        _snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        _elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
}
"""Per corruption its function, and what this takes at severities 1 to 5; in the order of the paper."""
