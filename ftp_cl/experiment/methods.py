"""The methods that `method=` names."""

from dataclasses import dataclass

from ftp_cl.experiment import builders, semi_supervised
from ftp_cl.experiment.builders import with_ftp
from ftp_cl.experiment.signatures import Builder


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        description: one line, with the source.
        build: takes the model, which it may change (freeze, another head), and the method's keys; returns plugins.
    """

    description: str
    build: Builder


_ALONE: dict[str, Method] = {
    "naive": Method("fine-tuning, one experience after another", builders.naive),
    "linear_probe": Method("the head alone is trained, on the frozen backbone", builders.linear_probe),
    "lp_ft": Method("the head first, then everything (Kumar et al. 2022, arXiv 2202.10054)", builders.lp_ft),
    "joint": Method("all experiences at once: the upper bound", builders.joint),
    "ftp": Method("Fast Trainable Projection (Tian et al. 2023, arXiv 2310.19182)", builders.ftp),
    "l2_sp": Method("L2 penalty towards the anchor (Li et al. 2018, arXiv 1802.01483)", builders.l2_sp),
    "mars_sp": Method("MARS-norm penalty towards the anchor (Gouk et al. 2021, arXiv 2002.08253)", builders.mars_sp),
    "mars_pgm": Method("projection onto balls of one radius (Gouk et al. 2021, arXiv 2002.08253)", builders.mars_pgm),
    "spd": Method("selective projection decay (Tian et al. 2024, arXiv 2411.01713)", builders.spd),
    "tpgm": Method("Trainable Projected Gradient Method (Tian et al. 2023, arXiv 2303.10720)", builders.tpgm),
    "wise_ft": Method("weight interpolation (Wortsman et al. 2022, arXiv 2109.01903)", builders.wise_ft),
    "ncm": Method("nearest class mean (SimpleCIL, Zhou et al. 2024, arXiv 2303.07338)", builders.prototypes),
    "lda": Method("linear discriminant analysis (Hayes & Kanan 2020, arXiv 1909.01520)", builders.prototypes),
    "ranpac": Method(
        "random features + ridge regression (McDonnell et al. 2023, arXiv 2307.02251)", builders.prototypes
    ),
    "lda_ensemble": Method(
        "fine-tuning; its head, LDA on its features and LDA on frozen ones decide together", builders.lda_ensemble
    ),
    "slda": Method("frozen features + linear discriminant analysis (Hayes & Kanan 2020)", builders.slda),
    "feature_distillation": Method(
        "relative L2 to the earlier model's features (Jung et al. 2016, arXiv 1607.00122)",
        builders.feature_distillation,
    ),
    "ewc": Method("Elastic Weight Consolidation (Kirkpatrick et al. 2017; Avalanche's EWCPlugin)", builders.ewc),
    "si": Method("Synaptic Intelligence (Zenke et al. 2017; Avalanche's plugin)", builders.si),
    "mas": Method("Memory Aware Synapses (Aljundi et al. 2018; Avalanche's MASPlugin)", builders.mas),
    "lwf": Method("Learning without Forgetting (Li & Hoiem 2016; Avalanche's LwFPlugin)", builders.lwf),
    "replay": Method("experience replay (Avalanche's ReplayPlugin)", builders.replay),
    "der": Method("Dark Experience Replay ++ (Buzzega et al. 2020, arXiv 2004.07211)", builders.der),
    "agem": Method("averaged gradient episodic memory (Chaudhry et al. 2019; Avalanche's AGEMPlugin)", builders.agem),
    "gem": Method("gradient episodic memory (Lopez-Paz & Ranzato 2017; Avalanche's GEMPlugin)", builders.gem),
}

_SEMI_SUPERVISED: dict[str, Method] = {
    "pseudo_label": Method("the model's own answers as labels (Lee 2013)", semi_supervised.pseudo_label),
    "mean_teacher": Method(
        "a teacher of averaged weights (Tarvainen & Valpola 2017, arXiv 1703.01780)", semi_supervised.mean_teacher
    ),
    "fixmatch": Method("FixMatch (Sohn et al. 2020, arXiv 2001.07685)", semi_supervised.fixmatch),
    "flexmatch": Method("FlexMatch (Zhang et al. 2021, arXiv 2110.08263)", semi_supervised.flexmatch),
    "freematch": Method("FreeMatch (Wang et al. 2023, arXiv 2205.07246)", semi_supervised.freematch),
    "fixmatch_ftp": Method("FixMatch, with FTP", builders.with_ftp(semi_supervised.fixmatch)),
}

_WITH_FTP = (
    "feature_distillation", "wise_ft", "ncm", "lda", "ranpac", "lda_ensemble",
    "ewc", "si", "mas", "lwf", "replay", "der", "agem", "gem",
)  # fmt: skip

METHODS: dict[str, Method] = {
    **_ALONE,
    **_SEMI_SUPERVISED,
    **{
        f"ftp_{name}": Method(f"{_ALONE[name].description}, with FTP", with_ftp(_ALONE[name].build))
        for name in _WITH_FTP
    },
}

NEED_UNLABELLED = frozenset(_SEMI_SUPERVISED)
"""Methods that cannot do without images whose labels are hidden."""
