"""How the semi-supervised methods are built from their keys in configs/method/; see builders.py."""

from collections.abc import Callable
from typing import Any

from ftp_cl.experiment.signatures import Builder, Plugins, parameters_of, with_signature
from ftp_cl.models import ContinualClassifier
from ftp_cl.plugins import (
    FixMatch,
    FlexMatch,
    FreeMatch,
    MeanTeacher,
    PseudoLabel,
    SemiSupervisedPlugin,
    StrongView,
    WeakView,
)

_OF_ALL = ("weight", "ratio", "ema_decay", "classes")


def _weak(flip: bool, crop: float) -> dict[str, Any]:
    return {"view": WeakView(flip, crop)}


def _weak_and_strong(flip: bool, crop: float, magnitude: int, cutout: float) -> dict[str, Any]:
    weak = WeakView(flip, crop)
    return {"weak": weak, "strong": StrongView(weak, magnitude=magnitude, cutout=cutout)}


def _builder(plugin: type[SemiSupervisedPlugin], views: Callable[..., dict[str, Any]], *keys: str) -> Builder:
    """The builder of a method: its keys are arguments of its plugin, and those that its views are made from."""
    of_views = {parameter.name: parameter for parameter in parameters_of(views)}

    def build(model: ContinualClassifier, **values: Any) -> Plugins:
        made = views(**{key: values.pop(key) for key in of_views if key in values})
        return [plugin(**made, **values, record=True)]  # type: ignore[arg-type]

    kinds = [kind for kind in reversed(plugin.__mro__) if issubclass(kind, SemiSupervisedPlugin)]
    known = {parameter.name: parameter for kind in kinds for parameter in parameters_of(kind)}
    return with_signature(build, [*(known[key] for key in keys), *of_views.values()])


pseudo_label = _builder(PseudoLabel, _weak, "threshold", "weight", "ratio", "ramp", "classes")
mean_teacher = _builder(MeanTeacher, _weak, *_OF_ALL, "ramp")
fixmatch = _builder(FixMatch, _weak_and_strong, "threshold", *_OF_ALL)
flexmatch = _builder(FlexMatch, _weak_and_strong, "threshold", *_OF_ALL)
freematch = _builder(FreeMatch, _weak_and_strong, "fairness", "momentum", *_OF_ALL)
