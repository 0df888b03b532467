"""The methods that `method=` names: each builds its Avalanche plugins from the keys of configs/method/."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from avalanche.training.plugins import EWCPlugin, ReplayPlugin

from ftp_cl.models import ContinualClassifier
from ftp_cl.plugins import FTPPlugin, LinearDiscriminantPlugin


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        description: one line, with the source.
        build: takes the model, which it may change (freeze, another head), and the method's keys; returns plugins.
        trains: False for methods that fit their classifier without gradients.
    """

    description: str
    build: Callable[..., list[Any]]
    trains: bool = True


def _naive(model: ContinualClassifier) -> list[Any]:
    return []


def _linear_probe(model: ContinualClassifier) -> list[Any]:
    model.backbone.requires_grad_(False)
    return []


def _ftp(
    model: ContinualClassifier,
    k: float,
    mu: float,
    anchor: str,
    exclude: str | list[str],
    when: str,
    radius_data: str,
    radius_iterations: int,
) -> list[Any]:
    return [
        FTPPlugin(k, anchor, exclude, when, radius_data=radius_data, radius_iterations=radius_iterations, mu=mu)  # type: ignore[arg-type]
    ]


def _replay(model: ContinualClassifier, mem_size: int) -> list[Any]:
    return [ReplayPlugin(mem_size=mem_size)]


def _ftp_replay(model: ContinualClassifier, mem_size: int, **options: Any) -> list[Any]:
    return [*_replay(model, mem_size), *_ftp(model, **options)]


def _ewc(model: ContinualClassifier, ewc_lambda: float) -> list[Any]:
    return [EWCPlugin(ewc_lambda=ewc_lambda)]


def _slda(model: ContinualClassifier, shrinkage: float) -> list[Any]:
    model.backbone.requires_grad_(False)
    return [LinearDiscriminantPlugin(shrinkage=shrinkage)]


METHODS: dict[str, Method] = {
    "naive": Method("fine-tuning, one experience after another", _naive),
    "linear_probe": Method("the head alone is trained, on the frozen backbone", _linear_probe),
    "ftp": Method("Fast Trainable Projection (Tian et al. 2023, arXiv 2310.19182)", _ftp),
    "replay": Method("experience replay (Avalanche's ReplayPlugin)", _replay),
    "ftp_replay": Method("experience replay and FTP", _ftp_replay),
    "ewc": Method("Elastic Weight Consolidation (Kirkpatrick et al. 2017; Avalanche's EWCPlugin)", _ewc),
    "slda": Method("frozen features + linear discriminant analysis (Hayes & Kanan 2020)", _slda, trains=False),
}
