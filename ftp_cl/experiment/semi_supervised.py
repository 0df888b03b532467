"""How the semi-supervised methods are built from their keys in configs/method/; see builders.py."""

from typing import Any

from ftp_cl.models import ContinualClassifier
from ftp_cl.plugins import FixMatch, FlexMatch, FreeMatch, MeanTeacher, PseudoLabel, StrongView, WeakView


def pseudo_label(
    model: ContinualClassifier,
    threshold: float,
    weight: float,
    ratio: float,
    ramp: list[float],
    classes: str,
    flip: bool,
    crop: float,
) -> list[Any]:
    """Pseudo-labels on one view."""
    start, end = ramp
    options: dict[str, Any] = {"weight": weight, "ratio": ratio, "ramp": (start, end), "classes": classes}
    return [PseudoLabel(threshold, view=WeakView(flip, crop), record=True, **options)]


def mean_teacher(
    model: ContinualClassifier,
    weight: float,
    ratio: float,
    ema_decay: float,
    ramp: float,
    classes: str,
    flip: bool,
    crop: float,
) -> list[Any]:
    """A teacher of averaged weights."""
    options: dict[str, Any] = {
        "weight": weight,
        "ratio": ratio,
        "ema_decay": ema_decay,
        "ramp": ramp,
        "classes": classes,
    }
    return [MeanTeacher(view=WeakView(flip, crop), record=True, **options)]


def fixmatch(
    model: ContinualClassifier,
    threshold: float,
    weight: float,
    ratio: float,
    ema_decay: float | None,
    classes: str,
    flip: bool,
    crop: float,
    magnitude: int,
    cutout: float,
) -> list[Any]:
    """Confident answers to weak views for strong views."""
    options: dict[str, Any] = {"weight": weight, "ratio": ratio, "ema_decay": ema_decay, "classes": classes}
    return [FixMatch(threshold, **_views(flip, crop, magnitude, cutout), **options)]


def flexmatch(
    model: ContinualClassifier,
    threshold: float,
    weight: float,
    ratio: float,
    ema_decay: float | None,
    classes: str,
    flip: bool,
    crop: float,
    magnitude: int,
    cutout: float,
) -> list[Any]:
    """FixMatch with a threshold per class."""
    options: dict[str, Any] = {"weight": weight, "ratio": ratio, "ema_decay": ema_decay, "classes": classes}
    return [FlexMatch(threshold, **_views(flip, crop, magnitude, cutout), **options)]


def freematch(
    model: ContinualClassifier,
    fairness: float,
    momentum: float,
    weight: float,
    ratio: float,
    ema_decay: float | None,
    classes: str,
    flip: bool,
    crop: float,
    magnitude: int,
    cutout: float,
) -> list[Any]:
    """FixMatch with thresholds from the model's confidence."""
    options: dict[str, Any] = {"weight": weight, "ratio": ratio, "ema_decay": ema_decay, "classes": classes}
    return [FreeMatch(fairness=fairness, momentum=momentum, **_views(flip, crop, magnitude, cutout), **options)]


def _views(flip: bool, crop: float, magnitude: int, cutout: float) -> dict[str, Any]:
    weak = WeakView(flip, crop)
    return {"weak": weak, "strong": StrongView(weak, magnitude=magnitude, cutout=cutout), "record": True}
