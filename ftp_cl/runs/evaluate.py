"""A finished run's model on the streams of another benchmark, or on streams that were not there: `ftp-cl evaluate`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from avalanche.training import Naive
from omegaconf import DictConfig
from torch.optim import SGD

from ftp_cl.metrics.stream_order import is_ood
from ftp_cl.runs.build import is_import_path
from ftp_cl.runs.config import ConfigError, load_config, load_repeated, parsed, plain
from ftp_cl.runs.data import benchmark_of, check_tokens
from ftp_cl.runs.engine import MODEL_KEYS, Engine
from ftp_cl.runs.group import device_of, joined
from ftp_cl.runs.model_keys import with_models_keys
from ftp_cl.runs.records import RESULT_FILE
from ftp_cl.runs.start import class_names, saved_classes, started_model
from ftp_cl.runs.targets import check_outputs, counts_for, evaluator_for


def evaluate(run: Path, overrides: Sequence[str], say: Callable[[str], None]) -> dict[str, float]:
    """Evaluate the saved weights of a run, head included, on the test stream and the OOD streams of a benchmark.

    Classes are matched by name; images of classes that the run never had count as wrong.

    Args:
        run: directory of a run with `save_weights=true`. It may be a stranger's: its weights are read as tensors only.
        overrides: as of `ftp-cl run`: `benchmark=emoji_styles`, `eval.batch_size=64`. The benchmark and its keys, seed,
            precision and `eval.ood_classes` are the run's unless they are given.
        say: is told what the engine has to say.

    Returns:
        Accuracy in percent by stream, over all its images; mean IoU or the like for masks.

    Raises:
        ConfigError: the run has no weights, its method decides by more than these, or a key is wrong.
        OSError: a file cannot be read.
    """
    config = with_models_keys(_configuration(run, overrides))
    with joined(config):
        return _evaluated(config, say)


def _evaluated(config: DictConfig, say: Callable[[str], None]) -> dict[str, float]:
    benchmark, _ = benchmark_of(config)
    counts = counts_for(benchmark, config.eval.ood_classes)
    options = plain(config.model)
    ours = {key: options.pop(key, None) for key in MODEL_KEYS}
    classes = class_names(benchmark.description)
    _check_classes(options["start"], {name for name in classes if name is not None}, say)
    model = started_model(options, classes)
    check_outputs(model, counts)
    check_tokens(benchmark, model)
    engine = Engine(config, device_of(config.device), say)
    engine.prepare(model, **ours)
    strategy = Naive(
        model=model,
        optimizer=SGD(model.parameters(), lr=0.0),
        eval_mb_size=config.eval.batch_size,
        device=engine.device,
        evaluator=evaluator_for(counts),
    )
    accuracies = {}
    for name, stream in benchmark.streams.items():
        if name != config.eval.stream and not is_ood(stream):
            continue
        strategy.eval(counts.to_evaluate(stream), num_workers=engine.workers)
        numbers = sorted(experience.current_experience for experience in stream)
        accuracy = counts.record.accuracy(counts.row, name, numbers)
        if accuracy is not None:
            accuracies[name] = accuracy
    return accuracies


def _check_classes(run: str, classes: set[str], say: Callable[[str], None]) -> None:
    known = set(filter(None, saved_classes(run)))
    if (new := classes - known) and known:
        words = f"{run} has {'none' if new == classes else 'not all'} of the benchmark's classes; it lacks {min(new)!r}"
        if new == classes:
            raise ConfigError(f"{words}, for instance, and has {min(known)!r}.")
        say(f"  {words} and {len(new) - 1} more, whose images count as wrong.")


def _configuration(run: Path, overrides: Sequence[str]) -> DictConfig:
    """That of the evaluation: the run's, as far as it is not given and changes a number."""
    recorded = load_repeated(run / RESULT_FILE, [], trust=True)
    name = recorded.benchmark.name
    given = {parsed(word).key_or_group for word in overrides}
    is_same = not given & {"benchmark", "experiment"}
    if is_import_path(name) and is_same:
        raise ConfigError(
            f"{run} has a benchmark that runs code which it names: add benchmark=own benchmark.name={name} if you "
            "trust it, or choose another."
        )
    of_run = {"seed": recorded.seed, "precision": recorded.precision, "eval.ood_classes": recorded.eval.ood_classes}
    if is_same:
        of_run["benchmark"] = name
    words = [f"{key}={value}" for key, value in of_run.items() if key not in given and value is not None]
    own = plain(recorded.benchmark) if is_same else None
    start = str(run).replace("'", r"\'")
    return load_config([*words, "method=naive", f"+model.start='{start}'", *overrides], own)
