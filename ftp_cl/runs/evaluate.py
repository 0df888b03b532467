"""A finished run's model on the streams of another benchmark, or on streams that were not there: `ftp-cl evaluate`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from avalanche.training import Naive
from hydra.utils import get_object
from torch.optim import SGD

from ftp_cl.metrics.stream_order import is_ood
from ftp_cl.plugins import PrototypeClassifier
from ftp_cl.runs.build import is_import_path
from ftp_cl.runs.catalogue import combinations, entry
from ftp_cl.runs.config import ConfigError, load_config, load_repeated, plain
from ftp_cl.runs.data import benchmark_of, check_tokens
from ftp_cl.runs.engine import MODEL_KEYS, Engine
from ftp_cl.runs.group import device_of
from ftp_cl.runs.model_keys import with_models_keys
from ftp_cl.runs.records import RESULT_FILE
from ftp_cl.runs.start import class_names, started_model
from ftp_cl.runs.targets import check_outputs, counts_for, evaluator_for


def evaluate(run: Path, overrides: Sequence[str], say: Callable[[str], None]) -> dict[str, float]:
    """Evaluate the saved weights of a run, head included, on the test stream and the OOD streams of a benchmark.

    Classes are matched by name; images of classes that the run never had count as wrong.

    Args:
        run: directory of a run with `save_weights=true`. It may be a stranger's: its weights are read as tensors only.
        overrides: as of `ftp-cl run`: `benchmark=emoji_styles`, `eval.batch_size=64`. Benchmark, seed and precision are
            the run's unless they are given.
        say: is told what the engine has to say.

    Returns:
        Accuracy in percent by stream, over all its images; mean IoU or the like for masks.

    Raises:
        ConfigError: the run has no weights, its method decides by more than its weights, or a key is wrong.
        OSError: a file cannot be read.
    """
    recorded = load_repeated(run / RESULT_FILE, [], trust=True)
    name = recorded.method.name
    target = None if is_import_path(name) else entry("method", combinations().get(name, name)).target
    if target is not None and issubclass(get_object(target), PrototypeClassifier):
        raise ConfigError(f"{run} has method={name}, whose statistics are not in its weights.")
    given = {word.lstrip("+").partition("=")[0] for word in overrides}
    defaults = {"benchmark": recorded.benchmark.name, "seed": recorded.seed, "precision": recorded.get("precision")}
    words = [f"{key}={value}" for key, value in defaults.items() if key not in given and value is not None]
    config = with_models_keys(load_config([*words, "method=naive", f"+model.start={run}", *overrides]))
    benchmark, _ = benchmark_of(config)
    counts = counts_for(benchmark)
    options = plain(config.model)
    ours = {key: options.pop(key, None) for key in MODEL_KEYS}
    model = started_model(options, class_names(benchmark.description))
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
