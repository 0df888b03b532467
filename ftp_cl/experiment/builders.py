"""How each method's Avalanche plugins are built from its keys in configs/method/.

The plugins' docstrings name their sources. Each function takes the model, which it may change, and the keys, and
returns plugins in the order in which their hooks are to run.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

from avalanche.training.plugins import (
    EWCPlugin,
    GEMPlugin,
    LwFPlugin,
    MASPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)

from ftp_cl.experiment.agem import ResumableAGEM
from ftp_cl.experiment.config import ConfigError
from ftp_cl.experiment.semi_supervised import fixmatch
from ftp_cl.experiment.signatures import Builder, Plugins, parameters_of, with_signature
from ftp_cl.models import ContinualClassifier, LinearHead
from ftp_cl.plugins import (
    AnchorPenalty,
    DarkExperienceReplay,
    FeatureDistillation,
    FixedRadiusPlugin,
    FTPPlugin,
    HeadFirst,
    JointTraining,
    LDAEnsemble,
    PrototypeClassifier,
    SPDPlugin,
    TPGMPlugin,
    WiSEFT,
)


def _only(plugin: Callable[..., Any]) -> Builder:
    """The builder of a method that is one plugin, whose arguments are its keys."""

    def build(model: ContinualClassifier, **keys: Any) -> Plugins:
        return [plugin(**keys)]

    return with_signature(build, parameters_of(plugin))


def naive(model: ContinualClassifier) -> Plugins:
    """Fine-tuning needs none."""
    return []


def linear_probe(model: ContinualClassifier) -> Plugins:
    """A frozen backbone."""
    model.backbone.requires_grad_(False)
    return []


def joint(model: ContinualClassifier) -> Plugins:
    """All data at once."""
    return [JointTraining()]


def lp_ft(model: ContinualClassifier, share: float) -> Plugins:
    """The head first, then everything."""
    return [HeadFirst(share)]


# ---- around an anchor -----------------------------------------------------------------------------------------------


def ftp(
    model: ContinualClassifier,
    k: float,
    mu: float,
    scale_by_classes: float,
    pretrained_classes: float,
    anchor: str,
    exclude: str | list[str],
    when: str,
    radius_data: str,
    radius_iterations: int,
    method: str,
    backend: str,
    direction_dtype: str | None,
    anchor_device: str | None,
) -> Plugins:
    """Fast Trainable Projection."""
    radii: dict[str, Any] = {"radius_data": radius_data, "radius_iterations": radius_iterations, "mu": mu}
    radii |= {"scale_by_classes": scale_by_classes, "pretrained_classes": pretrained_classes}
    storage: dict[str, Any] = {"direction_dtype": direction_dtype, "anchor_device": anchor_device}
    plugin = FTPPlugin(k, anchor, exclude, when, method=method, backend=backend, **radii, **storage)  # type: ignore[arg-type]
    return [plugin]


l2_sp = _only(AnchorPenalty)
mars_sp = _only(AnchorPenalty)
mars_pgm = _only(FixedRadiusPlugin)
spd = _only(SPDPlugin)
tpgm = _only(TPGMPlugin)
wise_ft = _only(WiSEFT)
feature_distillation = _only(FeatureDistillation)
der = _only(DarkExperienceReplay)


# ---- prototypes -----------------------------------------------------------------------------------------------------


def prototypes(
    model: ContinualClassifier,
    classifier: str,
    features: str,
    drift: bool,
    bandwidth: float,
    shrinkage: float,
    projection_size: int,
) -> Plugins:
    """Prototypes on frozen, once adapted or adapted features."""
    plugin = PrototypeClassifier(classifier, features, drift, bandwidth, shrinkage, projection_size)  # type: ignore[arg-type]
    if features == "frozen":
        # The model's own head is not used: a linear one spares the pass over the images that imprinting takes.
        model.head = LinearHead(model.num_features)
    return [plugin]


lda_ensemble = _only(LDAEnsemble)


def slda(model: ContinualClassifier, shrinkage: float) -> Plugins:
    """Linear discriminant analysis on frozen features."""
    return prototypes(model, "lda", "frozen", False, 0.3, shrinkage, 1)


# ---- Avalanche's own ------------------------------------------------------------------------------------------------


def ewc(model: ContinualClassifier, ewc_lambda: float) -> Plugins:
    """Elastic weight consolidation."""
    return [EWCPlugin(ewc_lambda=ewc_lambda)]


def si(model: ContinualClassifier, si_lambda: float, eps: float) -> Plugins:
    """Synaptic intelligence; its bookkeeping cannot follow a head that grows."""
    return [SynapticIntelligencePlugin(si_lambda, eps, excluded_parameters=["head"])]


def mas(model: ContinualClassifier, lambda_reg: float, alpha: float) -> Plugins:
    """Memory aware synapses."""
    return [MASPlugin(lambda_reg=lambda_reg, alpha=alpha)]


def lwf(model: ContinualClassifier, alpha: float, temperature: float) -> Plugins:
    """Learning without forgetting."""
    return [LwFPlugin(alpha=alpha, temperature=temperature)]


def replay(model: ContinualClassifier, mem_size: int) -> Plugins:
    """Experience replay."""
    return [ReplayPlugin(mem_size=mem_size)]


def agem(model: ContinualClassifier, patterns_per_experience: int, sample_size: int) -> Plugins:
    """Averaged gradient episodic memory."""
    return [ResumableAGEM(patterns_per_experience, sample_size)]


def gem(model: ContinualClassifier, patterns_per_experience: int, memory_strength: float) -> Plugins:
    """Gradient episodic memory.

    Raises:
        ConfigError: if the solver that Avalanche's plugin calls is not installed.
    """
    if importlib.util.find_spec("quadprog") is None:
        raise ConfigError("method=gem needs a solver (pip install 'ftp-cl[gem]' or quadprog), or use method=agem.")
    return [GEMPlugin(patterns_per_experience, memory_strength)]


# ---- with FTP -------------------------------------------------------------------------------------------------------


def with_ftp(build: Builder) -> Builder:
    """The plugins of a method and those of FTP, from the keys of both; it has the parameters of both.

    FTP comes first, so that others find projected weights when an experience ends; but after replay, whose buffer it
    may learn its radii on, and after FixMatch, whose averaged weights it is to project. A key that both have (an
    anchor) is one key.
    """
    own, projection = ({p.name: p for p in parameters_of(builder)[1:]} for builder in (build, ftp))

    def both(model: ContinualClassifier, **keys: Any) -> Plugins:
        theirs = build(model, **{key: value for key, value in keys.items() if key in own})
        ours = ftp(model, **{key: value for key, value in keys.items() if key in projection})
        return theirs + ours if build in (replay, fixmatch) else ours + theirs

    return with_signature(both, list({**own, **projection}.values()))
