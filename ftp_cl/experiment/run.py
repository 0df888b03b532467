"""One run: train on the stream, evaluate after each experience, write one result."""

import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training import Naive
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ftp_cl.benchmarks import build_benchmark
from ftp_cl.experiment.config import ConfigError, call_with
from ftp_cl.experiment.environment import describe_environment, peak_memory_mb
from ftp_cl.experiment.methods import METHODS
from ftp_cl.experiment.progress import RunProgress
from ftp_cl.experiment.record import RunDirectory
from ftp_cl.metrics import summarize
from ftp_cl.models import ContinualClassifier, build_model
from ftp_cl.plugins import FreezeBatchNorm, FreshOptimizer, FTPPlugin, SeparatedSoftmax
from ftp_cl.report import RESULT_SCHEMA


def run(config: DictConfig, directory: Path) -> Path:
    """Carry out one configuration, unless its result is there already.

    Args:
        config: from `load_config`.
        directory: the run directory.

    Returns:
        The path of result.json.

    Raises:
        ConfigError: if an option does not fit its benchmark, model or method, or the directory holds another run.
    """
    record = RunDirectory(directory, config)
    if record.result_path.exists():
        RunProgress("", 0).say(f"{record.result_path} is there already; nothing to do.")
        return record.result_path
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    RNGManager.set_random_seeds(config.seed)
    benchmark = _build_benchmark(config)
    name = f"{config.method.name} on {config.benchmark.name}, seed {config.seed}"
    with RunProgress(name, len(benchmark.train_stream)) as progress:
        recorder = _Recorder(record, progress)
        strategy = _build_strategy(config, recorder)
        record.start_events()
        measured = _train_and_evaluate(config, benchmark, strategy, recorder)
        record.write_result(_result(config, benchmark, strategy, measured))
        progress.say(f"{name}: {record.result_path}")
    return record.result_path


# ---- building -------------------------------------------------------------------------------------------------------


def _build_benchmark(config: DictConfig) -> Any:
    options = _options(config.benchmark)
    return build_benchmark(options.pop("name"), **options, seed=config.seed)


def _options(group: DictConfig) -> dict[str, Any]:
    """The keys of a configuration group, with its name."""
    return {str(key): value for key, value in OmegaConf.to_container(group, resolve=True).items()}  # type: ignore[union-attr]


def _build_strategy(config: DictConfig, recorder: "_Recorder") -> Naive:
    options = _options(config.model)
    model = build_model(options.pop("name"), **options)
    options = _options(config.method)
    method = METHODS[options.pop("name")]
    plugins = [recorder, *call_with(method.build, options, "method", model)]
    if config.train.softmax == "separated":
        plugins.insert(0, SeparatedSoftmax())
    if config.train.freeze_batch_norm:
        plugins.append(FreezeBatchNorm())
    if config.optimizer.fresh:
        plugins.append(FreshOptimizer())
    optimizer = _build_optimizer(config.optimizer, model)
    if config.train.schedule == "cosine" and method.trains:
        # Per epoch: T_max in iterations would differ between experiences.
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.train.epochs)
        plugins.append(LRSchedulerPlugin(scheduler))
    return Naive(
        model=model,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=config.train.batch_size,
        train_epochs=config.train.epochs if method.trains else 0,
        eval_mb_size=config.eval.batch_size,
        device=_device(config.device),
        plugins=plugins,
        evaluator=_evaluator(),
    )


def _evaluator() -> EvaluationPlugin:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No loggers specified")  # the run directory has its own record
        return EvaluationPlugin(accuracy_metrics(experience=True, stream=True))


def _build_optimizer(options: DictConfig, model: ContinualClassifier) -> torch.optim.Optimizer:
    backbone_lr = options.lr if options.backbone_lr is None else options.backbone_lr
    groups = [
        {"params": list(model.backbone.parameters()), "lr": backbone_lr},
        {"params": list(model.head.parameters()), "lr": options.lr},
    ]
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
    return torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


# ---- running --------------------------------------------------------------------------------------------------------


class _Recorder(SupervisedPlugin[Any]):
    """Times iterations, writes the loss of each epoch, moves the bar."""

    def __init__(self, record: RunDirectory, progress: RunProgress) -> None:
        super().__init__()
        self.record, self.progress = record, progress
        self.step_seconds: list[float] = []
        self._losses: list[float] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.progress.start_experience(
            strategy.clock.train_exp_counter, len(strategy.dataloader) * strategy.train_epochs
        )

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self._start = time.perf_counter()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self._losses.append(strategy.loss.item())
        self.step_seconds.append(time.perf_counter() - self._start)
        self.progress.advance()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.record.add_event(
            "train",
            experience=strategy.clock.train_exp_counter,
            epoch=strategy.clock.train_exp_epochs,
            iteration=strategy.clock.train_iterations,
            loss=statistics.fmean(self._losses),
            seconds=round(sum(self.step_seconds[-len(self._losses) :]), 4),
        )
        self._losses.clear()


def _train_and_evaluate(config: DictConfig, benchmark: Any, strategy: Naive, recorder: _Recorder) -> dict[str, Any]:
    record, progress = recorder.record, recorder.progress
    matrix: list[list[float]] = []
    train_seconds = 0.0
    for i, experience in enumerate(benchmark.train_stream):
        start = time.perf_counter()
        strategy.train(experience)
        train_seconds += time.perf_counter() - start
        matrix.append(_evaluate(strategy, benchmark.streams[config.eval.stream], config.eval.stream, i, record)[0])
        seen = statistics.fmean(matrix[i][: i + 1])
        progress.say(f"  after experience {i + 1} of {len(benchmark.train_stream)}: {seen:.1f} % on what was seen")
        table = _projection(strategy)
        if table:
            record.add_event("projection", experience=i, tensors=table)
    ood = {}
    if config.eval.ood:
        for name in [name for name in benchmark.streams if name.startswith("ood_")]:
            ood[name] = _evaluate(strategy, benchmark.streams[name], name, len(matrix) - 1, record)[1]
    return {
        **summarize(matrix, ood),
        "train_seconds": round(train_seconds, 3),
        "step_seconds_median": statistics.median(recorder.step_seconds) if recorder.step_seconds else None,
        "peak_memory_mb": round(peak_memory_mb(torch.device(strategy.device)), 1),
    }


def _evaluate(
    strategy: Naive, stream: Any, name: str, experience: int, record: RunDirectory
) -> tuple[list[float], float]:
    """Percent right in each experience of a stream, and over all its images."""
    strategy.evaluator.reset_last_metrics()
    start = time.perf_counter()
    metrics = strategy.eval(stream)
    seconds = time.perf_counter() - start
    per_experience = [value for key, value in sorted(metrics.items()) if key.startswith("Top1_Acc_Exp/eval_phase/")]
    accuracy = [round(100 * value, 6) for value in per_experience]
    (overall,) = (value for key, value in metrics.items() if key.startswith("Top1_Acc_Stream/eval_phase/"))
    record.add_event("eval", experience=experience, stream=name, accuracy=accuracy, seconds=round(seconds, 4))
    return accuracy, round(100 * overall, 6)


def _projection(strategy: Naive) -> dict[str, dict[str, float]]:
    return next((plugin.summary() for plugin in strategy.plugins if isinstance(plugin, FTPPlugin)), {})


def _result(config: DictConfig, benchmark: Any, strategy: Naive, measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": RESULT_SCHEMA,
        "benchmark": config.benchmark.name,
        "method": config.method.name,
        "model": config.model.name,
        "seed": config.seed,
        "config": OmegaConf.to_container(config, resolve=True),
        **measured,
        "classes_per_experience": [experience["names"] for experience in benchmark.description["experiences"]],
        "data": benchmark.description,
        "projection": _projection(strategy),
        "environment": describe_environment(torch.device(strategy.device)),
    }
