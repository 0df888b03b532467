"""One run: train on the stream, evaluate after each experience, write one result."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import torch
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.templates import SupervisedTemplate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ftp_cl.metrics.mask_record import MaskCounts
from ftp_cl.metrics.plugins import PredictionCounts, StreamCounts
from ftp_cl.plugins import FreezeBatchNorm, FreshOptimizer, LearningRateSchedule, SemiSupervisedPlugin
from ftp_cl.plugins.processes import count, rank
from ftp_cl.runs.best_epoch import BestEpoch
from ftp_cl.runs.build import is_import_path, methods_plugins, own_plugins, own_strategy
from ftp_cl.runs.checkpoint_files import CheckpointFiles
from ftp_cl.runs.checkpoints import Checkpoints
from ftp_cl.runs.config import ConfigError, call_with, plain
from ftp_cl.runs.data import benchmark_of, check_tokens
from ftp_cl.runs.directory import OthersDirectory, RunDirectory
from ftp_cl.runs.engine import MODEL_KEYS, Engine
from ftp_cl.runs.environment import describe_environment, set_deterministic
from ftp_cl.runs.examples import write_examples
from ftp_cl.runs.group import agreed, device_of, joined, together
from ftp_cl.runs.lock import DirectoryLock
from ftp_cl.runs.loggers import make_logger
from ftp_cl.runs.loop import Evaluation, Recorder, projection_table, train_and_evaluate
from ftp_cl.runs.model_keys import with_models_keys
from ftp_cl.runs.optimizer import build_optimizer, freeze_all_but
from ftp_cl.runs.progress import RunProgress
from ftp_cl.runs.records import RESULT_SCHEMA
from ftp_cl.runs.resumable import ResumableNaive, ResumableTraining, resumable
from ftp_cl.runs.start import class_names, kept_classes, started_model
from ftp_cl.runs.targets import check_outputs, counts_for, criterion_for, evaluator_for, separating
from ftp_cl.runs.termination import Termination

_FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk, a quota that is used up


def run(config: DictConfig, directory: Path) -> Path:
    """Carry out one configuration, unless its result is there already.

    Args:
        config: from `load_config`.
        directory: the run directory.

    Returns:
        The path of result.json.

    Raises:
        ConfigError: if an option does not fit its benchmark, model or method, the directory holds another run, or
            another process is writing it.
        OSError: weights cannot be had, or a file cannot be written.
        SystemExit: status 143, after SIGTERM.
        TimeLimitError: a job of submitit is at its time limit, and is not requeued.
    """
    with joined(config):
        config = with_models_keys(config)
        is_first = rank() == 0
        record = RunDirectory(directory, config) if is_first else OthersDirectory(directory, config)
        lock = DirectoryLock(directory) if is_first else contextlib.nullcontext()
        with lock, Termination(always_waits=count() > 1) as termination:
            record.check()
            if agreed(record.result_path.exists()):
                if is_first:
                    without = " Weights are kept when a run ends, and were not: use another out=."
                    words = without if config.save_weights and not record.weights_path.exists() else ""
                    RunProgress("", 0).say(f"{record.result_path} is there already; nothing to do.{words}")
                    CheckpointFiles(directory).clear()  # the run may have been killed before it did so itself
                return record.result_path
            record.remove_leftovers()
            try:
                _run(config, record, termination)
            except Exception as error:
                record.withdraw()
                record.write_error(error)
                if not isinstance(error, OSError) or error.errno not in _FULL:
                    raise
                words = f"{error.strerror}; once there is room, resume=true goes on"
                raise OSError(error.errno, words, error.filename or str(directory)) from error
        return record.result_path


def _run(config: DictConfig, record: RunDirectory, termination: Termination) -> None:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    set_deterministic(config.deterministic)
    RNGManager.set_random_seeds(config.seed)
    benchmark, hidden = benchmark_of(config)
    name = f"{config.label or config.method.name} on {config.benchmark.name}, seed {config.seed}"
    console = None if rank() == 0 else Console(quiet=True)
    with RunProgress(name, len(benchmark.train_stream), console) as progress, contextlib.ExitStack() as logs:
        if config.threads is not None and config.threads > (cores := os.cpu_count() or 1):
            progress.say(f"  threads={config.threads} are more than the {cores} cores here, which makes a run slower.")
        recorder = Recorder(record, progress)
        counts = counts_for(benchmark, config.eval.ood_classes)
        engine = Engine(config, device_of(config.device), progress.say)
        for key, value in {"train.accumulate": config.train.accumulate, "torchrun": count() > 1}.items():
            if value and not isinstance(counts, PredictionCounts):
                raise ConfigError(f"{key} is for a class of each image, and this benchmark has pixels.")
        evaluation = Evaluation(benchmark, config.eval.stream, counts, record, engine.workers)
        select = config.train.select and BestEpoch(benchmark, counts, record, engine.workers)
        known = class_names(benchmark.description)
        strategy = _build_strategy(config, recorder, counts, engine, select, known)
        check_tokens(benchmark, strategy.model)
        for plugin in strategy.plugins:
            if isinstance(plugin, SemiSupervisedPlugin):
                if "unlabelled" not in benchmark.streams:
                    needs = f"method={config.method.name} needs unlabelled images"
                    raise ConfigError(f"{needs}: labels.per_class=4, for instance.")
                plugin.workers = engine.workers
        checkpoints = Checkpoints(config, record, benchmark, termination, progress.say)
        if isinstance(strategy, ResumableTraining):
            strategy.checkpoints, strategy.engine = checkpoints, engine
        else:
            own = type(strategy).__name__
            engine.refuse_own_loop(own)
            progress.say(
                f"  checkpoints are written between experiences only, because {own} has its own training loop."
            )
        if not (config.resume and checkpoints.resume(strategy)):
            checkpoints.clear()
            record.begin()
        for logger in config.loggers if rank() == 0 else ():
            record.listeners.append(logs.enter_context(make_logger(logger, record.path, plain(config), progress.say)))
        with checkpoints.refusing_misfits():
            measured = train_and_evaluate(config, benchmark, strategy, checkpoints, recorder, hidden, evaluation)
        measured["selected_epochs"] = select.epochs if select else None
        if rank() == 0:
            if config.save_weights:
                record.write_weights(strategy.model, [*known, *kept_classes(plain(config.model), known)])
            if isinstance(counts, MaskCounts):
                measured["examples"] = write_examples(strategy, benchmark, counts.record, record.path)
            record.write_result(_result(config, benchmark, strategy, measured))
            checkpoints.clear()
        together()
        progress.say(f"{name}: {record.result_path}")


# ---- building -------------------------------------------------------------------------------------------------------


def _build_strategy(
    config: DictConfig,
    recorder: Recorder,
    counts: StreamCounts,
    engine: Engine,
    select: BestEpoch | None,
    classes: list[str | None],
) -> SupervisedTemplate:
    options = plain(config.model)
    ours = {key: None if is_import_path(options["name"]) else options.pop(key, None) for key in MODEL_KEYS}
    model = started_model(options, classes)
    plugins = [recorder, *methods_plugins(plain(config.method), model)]
    check_outputs(model, counts)
    if engine.accumulate > 1 and any(isinstance(plugin, SemiSupervisedPlugin) for plugin in plugins):
        raise ConfigError(f"train.accumulate is not for method={config.method.name}: use a smaller train.batch_size.")
    engine.prepare(model, **ours)
    if config.train_only is not None:
        freeze_all_but(config.train_only, model)
    if config.train.softmax == "separated":
        plugins[:0] = separating(counts)
    if config.train.freeze_batch_norm:
        plugins.append(FreezeBatchNorm())
    if config.optimizer.fresh:
        plugins.append(FreshOptimizer())
    plugins.append(LearningRateSchedule(config.train.warmup, config.train.schedule))
    if select is not None:
        plugins.append(select)
    plugins += own_plugins(OmegaConf.to_container(config.plugins, resolve=True))  # type: ignore[arg-type]
    arguments = {
        "model": model,
        "optimizer": build_optimizer(config.optimizer, model, engine.prefers_fused),
        "criterion": criterion_for(counts),
        "train_mb_size": config.train.batch_size,
        "train_epochs": config.train.epochs,
        "eval_mb_size": config.eval.batch_size,
        "device": engine.device,
        "plugins": plugins,
        "evaluator": evaluator_for(counts),
    }
    if config.strategy is None:
        return ResumableNaive(**arguments)
    options = plain(config.strategy)
    kind = own_strategy(options.pop("name"), options, arguments)
    return call_with(resumable(kind), {**arguments, **options}, "strategy")


# ---- the result -----------------------------------------------------------------------------------------------------


def _result(
    config: DictConfig, benchmark: Any, strategy: SupervisedTemplate, measured: dict[str, Any]
) -> dict[str, Any]:
    return {
        "schema": RESULT_SCHEMA,
        "benchmark": config.benchmark.name,
        "method": config.method.name,
        "model": config.model.name,
        "seed": config.seed,
        "config": OmegaConf.to_container(config, resolve=True),
        **measured,
        "classes_per_experience": [_class_names(benchmark, i) for i in range(len(benchmark.train_stream))],
        "data": benchmark.description,
        "projection": projection_table(strategy),
        "environment": {**describe_environment(torch.device(strategy.device)), "processes": count()},
    }


def _class_names(benchmark: Any, index: int) -> list[str]:
    """Of a training experience, which may come in another order than the benchmark describes, or again."""
    described, trained = benchmark.description["experiences"], benchmark.train_stream[index]
    number = index if len(described) == len(benchmark.train_stream) else trained.current_experience
    if number < len(described):
        return described[number]["names"]
    return [str(label) for label in sorted(map(int, trained.classes_in_this_experience))]
