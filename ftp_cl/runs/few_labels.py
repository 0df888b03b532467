"""Runs with few labels: the benchmark that `labels.*` asks for, and what pseudo-labels are worth."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from avalanche.training.templates import SupervisedTemplate

from ftp_cl.benchmarks import few_labels, hidden_labels
from ftp_cl.metrics import pseudo_label_quality
from ftp_cl.plugins import SemiSupervisedPlugin
from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.directory import RunDirectory


class PseudoLabelJudge:
    """Writes share and precision of pseudo-labels per epoch to metrics.jsonl, event "pseudo_labels".

    It holds the true labels, so nothing that trains may hold it: it is asked between two experiences, and takes from
    the plugin what that has written down.

    Args:
        record: of the run.
        true_labels: of each unlabelled item, per experience; empty if nobody knows them.
    """

    def __init__(self, record: RunDirectory, true_labels: list[list[int]]) -> None:
        self._record = record
        self._true_labels = [torch.tensor(labels) for labels in true_labels]

    def judge(self, strategy: SupervisedTemplate, experience: int) -> list[tuple[float, float | None]]:
        """Write one event per epoch since the last call; returns (share used, precision) of each."""
        epochs = []
        for plugin in strategy.plugins:
            if isinstance(plugin, SemiSupervisedPlugin):
                true_labels = [self._true_labels[number] for number in plugin.numbers] if self._true_labels else []
                for epoch, found in enumerate(plugin.take_pseudo_labels()):
                    truth = torch.cat(true_labels)[found.indices] if true_labels else None
                    share, precision = pseudo_label_quality(found.labels, found.used, truth)
                    epochs.append((share, precision))
                    self._record.add_event(
                        "pseudo_labels",
                        experience=experience,
                        epoch=epoch,
                        images=len(found.labels),
                        share=share,
                        precision=precision,
                    )
        return epochs


def keep_few_labels(
    build: Callable[[Mapping[str, Any]], Any], labels: Mapping[str, Any], seed: int
) -> tuple[Any, list[list[int]]]:
    """Apply the configuration's `labels` to a benchmark.

    Args:
        build: makes the benchmark, with all labels, from the keys that are to differ from the configuration's.
        labels: `per_class`, `fraction`, `allow_fewer`, and `unlabelled`: keys of the benchmark that differ for the
            unlabelled images.
        seed: of the run.

    Returns:
        The benchmark to train on, and the labels that it hides, per experience; none if all labels are kept.

    Raises:
        ConfigError: if `unlabelled` or `allow_fewer` is given without a budget.
        ValueError: for a budget that the benchmark cannot meet.
    """
    benchmark = build({})
    budget = {key: labels[key] for key in ("per_class", "fraction", "allow_fewer") if labels[key] is not None}
    if labels["per_class"] is None and labels["fraction"] is None:
        if labels["unlabelled"] is not None:
            raise ConfigError("labels.unlabelled needs labels.per_class or labels.fraction beside it.")
        if labels["allow_fewer"] is not None:
            raise ConfigError("labels.allow_fewer needs labels.per_class beside it.")
        return benchmark, []
    budget |= {"seed": seed, "unlabelled": None if labels["unlabelled"] is None else build(labels["unlabelled"])}
    return few_labels(benchmark, **budget), hidden_labels(benchmark, **budget)
