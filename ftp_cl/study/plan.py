"""What is compared: settings, methods, the space that each is tuned over, and the seeds."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from scipy.stats import qmc

from ftp_cl.runs.catalogue import config_directory
from ftp_cl.runs.schema import ConfigError, expanded

DEFAULT_PLAN = "comparison"
PLANS = (
    *(DEFAULT_PLAN, "defaults", "recommended", "ablations", "rates", "few_labels", "vit_rates", "grocery", "cifar100"),
    *("text", "dense", "vit_lora", "values"),
)
FIGURES = ("rates", "labels", "pseudo_labels")

_EXPERIMENT_PREFIX = "compare_"

_SEQUENCE_SEED = 0


@dataclass(frozen=True)
class Range:
    """The values of one key that tuning may try.

    Attributes:
        low, high: both included.
        log: whether values are spread evenly in their logarithm.
        choices: instead, a list of values.
    """

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def value(self, share: float) -> str:
        """The value at `share` in [0, 1) of the way through, with two significant digits, as an override has it."""
        if self.choices:
            return str(self.choices[int(share * len(self.choices))])
        value = self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)
        return f"{value:.2g}"


@dataclass(frozen=True)
class ComparedMethod:
    """One row of the tables.

    Attributes:
        name: of the row, and of its directory.
        overrides: what makes it, such as `method=ftp`.
        start: values of the first trial; the configuration's own where none is given.
        space: what tuning may try, by key; empty where there is nothing to tune.
        settings: where it takes part; empty for everywhere.
        curve: the name of the curve that it is a point of; its own where the plan has no curves.
    """

    name: str
    overrides: tuple[str, ...]
    start: Mapping[str, Any]
    space: Mapping[str, Range]
    settings: tuple[str, ...]
    curve: str

    def trials(self, number: int) -> list[tuple[str, ...]]:
        """The overrides of each tuning trial.

        The first has the values of `start`, the others follow a scrambled Sobol sequence over the space: they fill it
        more evenly than random draws, and each trial is known from its number alone, whatever ran before.
        """
        first = (*self.overrides, *(f"{key}={value}" for key, value in self.start.items()))
        if not self.space:
            return [first]
        sequence = qmc.Sobol(len(self.space), seed=_SEQUENCE_SEED)
        points = sequence.random_base2(max(1, number - 1).bit_length())[: number - 1]
        return [first] + [
            (
                *self.overrides,
                *(f"{key}={span.value(at)}" for (key, span), at in zip(self.space.items(), point, strict=True)),
            )
            for point in points
        ]


@dataclass(frozen=True)
class Plan:
    """The whole comparison.

    Attributes:
        name: as `ftp-cl compare --plan` takes it.
        settings: names.
        prefix: setting `x` is the experiment `<prefix>x` of the configuration.
        methods: the rows.
        trials: tuning trials of each method in each setting.
        tuned_in: setting -> those whose tuning it uses, for all methods alike, the best mean over them; one that is not
            here is tuned by itself.
        tuned_together: whether each method has one choice of values for all settings; `tuned_in` says so, too.
        tuning_seeds: each trial is the mean over these, on the validation stream.
        seeds: what is reported, on the test stream, with the best trial.
        references: methods that the others are told the difference to, where they take part.
        mean_over: settings whose mean is told for each method; all of them with `tuned_together`.
        figures: kind, of `FIGURES` -> the settings that it shows.
    """

    name: str
    settings: tuple[str, ...]
    prefix: str
    methods: tuple[ComparedMethod, ...]
    trials: int
    tuned_in: Mapping[str, tuple[str, ...]]
    tuned_together: bool
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    references: tuple[str, ...]
    mean_over: tuple[str, ...]
    figures: Mapping[str, tuple[str, ...]]

    def in_setting(self, setting: str) -> list[ComparedMethod]:
        """The methods that take part in a setting."""
        return [method for method in self.methods if not method.settings or setting in method.settings]

    def experiment(self, setting: str) -> str:
        """The name of the experiment that a setting is."""
        return f"{self.prefix}{setting}"

    def tuning_settings(self, setting: str, method: ComparedMethod | None = None) -> tuple[str, ...]:
        """Where the values that a setting uses are chosen; `method`: tuned together, where it takes part."""
        settings = self.tuned_in.get(setting, (setting,))
        if self.tuned_together and method is not None and method.settings:
            return tuple(other for other in settings if other in method.settings)
        return settings


def load_plan(name: str = DEFAULT_PLAN, quick: bool = False, only: Sequence[str] = ()) -> Plan:
    """Read the plan.

    Args:
        name: one of `PLANS`, in configs/, or the path of a YAML file.
        quick: the small version, which the file describes under `quick`.
        only: settings; empty for all.

    Raises:
        ConfigError: a setting does not exist, or the file is wrong: a key is missing, unknown or of the wrong kind, or
            a seed both tunes and is reported.
    """
    path = config_directory() / f"{name}.yaml" if name in PLANS else expanded(name)
    if not path.exists():
        raise ConfigError(f"there is no plan {name}: it must be a file, or one of {', '.join(PLANS)}.")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        smaller = content.pop("quick", {})
        plan = _plan(name, {**content, **smaller} if quick else content)
    except (KeyError, TypeError, ValueError, AttributeError, OmegaConfBaseException) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else error
        raise ConfigError(f"{path} is no plan of a comparison: {what}.") from error
    for setting in only:
        if setting not in plan.settings:
            near = difflib.get_close_matches(setting, plan.settings, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(plan.settings)}."
            raise ConfigError(f"the comparison has no setting {setting}; {hint}")
    return replace(plan, settings=tuple(only)) if only else plan


def _plan(name: str, content: Mapping[str, Any]) -> Plan:
    chosen = content.get("only", list(content["methods"]))
    tuned_together = bool(content.get("tuned_together", False))
    plan = Plan(
        name=name,
        settings=tuple(content["settings"]),
        prefix=str(content.get("prefix", _EXPERIMENT_PREFIX)),
        methods=tuple(method for row in chosen for method in _methods(row, content["methods"][row])),
        trials=int(content["trials"]),
        tuned_in=_tuned_in(content),
        tuned_together=tuned_together,
        tuning_seeds=tuple(content["tuning_seeds"]),
        seeds=tuple(content["seeds"]),
        references=tuple(content["references"]),
        mean_over=tuple(content["settings"] if tuned_together else content.get("mean_over", ())),
        figures={kind: tuple(settings) for kind, settings in content.get("figures", {}).items()},
    )
    for setting, others in plan.tuned_in.items():
        for other in others:
            if other not in plan.settings or other not in plan.tuning_settings(other):
                raise ValueError(f"{setting} cannot be tuned in {other}: it must be a setting that is tuned itself")
    if strange := sorted(set(plan.figures) - set(FIGURES)):
        raise ValueError(f"there is no figure {strange[0]}: there are {', '.join(FIGURES)}")
    for what, shown in (
        ("mean_over", plan.mean_over),
        *((f"the figure {kind}", s) for kind, s in plan.figures.items()),
    ):
        if missing := sorted(set(shown) - set(plan.settings)):
            raise ValueError(f"{what} has {missing[0]}, which is none of the settings")
    if shared := sorted(set(plan.seeds) & set(plan.tuning_seeds)):
        raise ValueError(f"seed {shared[0]} both tunes and is reported")
    if unknown := sorted(set(plan.references) - {method.name for method in plan.methods}):
        raise ValueError(f"the reference {unknown[0]} is none of the methods")
    return plan


def _tuned_in(content: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """As `tuned_in` has it; with `tuned_together`, in all settings, so that each method has one choice for all."""
    if not content.get("tuned_together", False):
        return {setting: (other,) for setting, other in content.get("tuned_in", {}).items()}
    if "tuned_in" in content:
        raise ValueError("tuned_together and tuned_in exclude each other")
    return {setting: tuple(content["settings"]) for setting in content["settings"]}


def _methods(name: str, content: Mapping[str, Any]) -> list[ComparedMethod]:
    """One row, or with `each: {key: [values]}` one for each value, named after both."""
    if "each" not in content:
        return [_method(name, content)]
    ((key, values),) = content["each"].items()
    rest = {own: value for own, value in content.items() if own != "each"}
    return [
        _method(f"{name}, {value}", {**rest, "overrides": [*content["overrides"], f"{key}={value}"]}, curve=name)
        for value in values
    ]


def _method(name: str, content: Mapping[str, Any], curve: str | None = None) -> ComparedMethod:
    if unknown := sorted(content.keys() - {"overrides", "start", "space", "settings"}):
        raise ValueError(f"method {name} has an unknown key {unknown[0]}")
    return ComparedMethod(
        name,
        tuple(content["overrides"]),
        dict(content.get("start", {})),
        {key: _range(key, span) for key, span in content.get("space", {}).items()},
        tuple(content.get("settings", ())),
        curve or name,
    )


def _range(key: str, span: Mapping[str, Any]) -> Range:
    ((kind, values),) = span.items()
    if kind == "choice":
        return Range(choices=tuple(values))
    low, high = values
    if kind not in ("log", "uniform") or not low < high or (kind == "log" and low <= 0):
        raise ValueError(f"the space of {key} must be log: [low, high], uniform: [low, high] or choice: [...]")
    return Range(low, high, log=kind == "log")
