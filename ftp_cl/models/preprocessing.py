"""What a backbone was pretrained on: how its images are resized, cut and normalised.

Timm, here and in its neighbours, is imported where it is used: runs of other models need not wait for it.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from PIL import Image

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Preprocessing:
    """Images as timm evaluates a model on them. Called with a PIL image, it returns one of ``size`` x ``size`` pixels.

    The benchmarks of this package take it as ``size``. It resizes and cuts; mean and std are the model's first layer.

    Attributes:
        size: side of the images in pixels.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
        crop: the share of the resized image's side that is kept, timm's ``crop_pct``: the image is resized to
            floor(size / crop). More than 1, which a few models have, leaves a black margin.
        crop_mode: of timm; "center" resizes the shorter side and cuts out the middle, "squash" resizes both sides,
            "border" resizes the longer side and fills up.
        mean: per channel, for images in [0, 1].
        std: per channel, in the same units.
    """

    size: int
    interpolation: str
    crop: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one is out of range.
        """
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise ValueError(f"size={self.size!r} is no number of pixels")
        for name, value, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("crop_mode", self.crop_mode, CROP_MODES),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(known)}")
        if not isinstance(self.crop, int | float) or not 0 < self.crop <= 2:
            raise ValueError(f"crop={self.crop!r} must be a share, above 0 (and up to 2, which leaves a margin)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
                raise ValueError(f"{name}={list(values)} must be three numbers, for images in [0, 1]")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std={list(self.std)} must be above 0")

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize and cut ``image``, in RGB."""
        return _transform(self)(image)


@cache
def _transform(preprocessing: Preprocessing) -> Any:
    from timm.data.transforms_factory import transforms_imagenet_eval

    composed = transforms_imagenet_eval(
        preprocessing.size,
        crop_pct=preprocessing.crop,
        crop_mode=preprocessing.crop_mode,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        normalize=False,
    )
    del composed.transforms[-1]  # which makes a tensor
    return composed


def preprocessing_of(architecture: str, **changes: Any) -> Preprocessing:
    """Return what timm records for the weights of a name; a tag ("vit_base_patch16_clip_224.openai") selects its own.

    Args:
        architecture: of timm, with or without a tag.
        changes: fields of ``Preprocessing`` that are to differ; None for as recorded.

    Raises:
        ValueError: the name is unknown, a value is out of range, or the weights are for images that are not square and
            no size is given.
    """
    import timm
    from timm.data import resolve_data_config

    check_name(architecture)
    given = {field: value for field, value in changes.items() if value is not None}
    configuration = timm.get_pretrained_cfg(architecture)
    assert configuration is not None  # the name exists
    recorded = resolve_data_config(pretrained_cfg=configuration.to_dict())
    _, height, width = recorded["input_size"]
    if height != width and "size" not in given:
        raise ValueError(f"{architecture} is for images of {height} x {width} pixels: give a size, both sides of which")
    values = {
        "size": height,
        "interpolation": recorded["interpolation"],
        "crop": recorded["crop_pct"],
        "crop_mode": recorded["crop_mode"],
        "mean": recorded["mean"],
        "std": recorded["std"],
        **given,
    }
    return Preprocessing(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def check_name(architecture: str, others: tuple[str, ...] = ()) -> None:
    """Check that timm has a model of this name and tag.

    Args:
        architecture: the name.
        others: what it may be taken for, beside timm's.

    Raises:
        ValueError: it has not; says the nearest.
    """
    import timm

    if not isinstance(architecture, str):
        raise ValueError(f"architecture={architecture!r} is no name of a model of timm, such as 'resnet18'")
    plain, dot, _ = architecture.partition(".")
    if not timm.is_model(plain):
        nearest = get_close_matches(architecture, [*others, *timm.list_models(), *timm.list_pretrained()], n=3)
        hint = f"; did you mean {', '.join(nearest)}?" if nearest else "; timm.list_models() lists them"
        raise ValueError(f"there is no model {architecture!r}{hint}")
    if dot and architecture not in (known := timm.list_pretrained(f"{plain}.*")):
        nearest = get_close_matches(architecture, known, n=3, cutoff=0) or [plain]
        raise ValueError(f"timm has no weights {architecture!r}; did you mean {', '.join(nearest)}?")


def recorded_size(architecture: str) -> int | None:
    """Return the side of the images that a model of timm is built for; None if it takes any."""
    import timm

    config = timm.get_pretrained_cfg(architecture)
    return config.input_size[-1] if config is not None and config.fixed_input_size else None
