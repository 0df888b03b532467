"""What an experience ends with: the epoch that is best on validation images; and training of some parameters only."""

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from safetensors.torch import load_file

from ftp_cl.benchmarks import split_digits
from ftp_cl.metrics.plugins import PredictionCounts
from ftp_cl.models import ContinualClassifier
from ftp_cl.plugins import FTPPlugin
from ftp_cl.runs.best_epoch import BestEpoch
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.run import run

FEW = ["benchmark=split_digits", "benchmark.n_experiences=2", "model=small_cnn", "train.batch_size=32", "threads=1"]
FEW += ["save_weights=true"]


class ByHand(SupervisedPlugin):
    """After each epoch: accuracy on the validation images, weights, and FTP's radii."""

    def __init__(self, benchmark, ftp):
        super().__init__()
        self.benchmark, self.ftp, self.epochs = benchmark, ftp, []

    def before_training_exp(self, strategy, **kwargs):
        self.epochs.append([])

    def after_training_epoch(self, strategy, **kwargs):
        dataset = self.benchmark.streams["validation"][len(self.epochs) - 1].dataset
        images = torch.stack([dataset[i][0] for i in range(len(dataset))])
        with torch.no_grad():
            right = strategy.model.eval()(images).argmax(1) == torch.tensor(list(dataset.targets))
        strategy.model.train()
        weights = {name: value.clone() for name, value in strategy.model.state_dict().items()}
        self.epochs[-1].append((right.float().mean().item(), weights, self.ftp.ftp.radii()))


class Events(list):
    def add_event(self, event, **values):
        self.append((event, values))


def test_an_experience_ends_with_weights_and_radii_of_its_best_epoch():
    torch.manual_seed(0)
    benchmark = split_digits(2, seed=0)
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16))
    model, ftp, counts, events = ContinualClassifier(backbone, 16), FTPPlugin(), PredictionCounts(), Events()
    watched = ByHand(benchmark, ftp)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=3.0, momentum=0.9),  # so high that accuracy goes up and down
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=64,
        train_epochs=5,
        plugins=[ftp, watched, select := BestEpoch(benchmark, counts, events, 0)],
        evaluator=EvaluationPlugin(counts),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
        epochs = watched.epochs[-1]
        accuracies = [accuracy for accuracy, _, _ in epochs]
        best = accuracies.index(max(accuracies))
        assert select.epochs[-1] == best
        assert ftp.ftp.radii() == epochs[best][2]
        for name, value in model.state_dict().items():
            assert torch.equal(value, epochs[best][1][name]), name
    assert any(epoch < 4 for epoch in select.epochs), "accuracy must have gone down, or nothing was tested"
    measured = [values["accuracy"] for _, values in events]
    assert measured == pytest.approx([100 * accuracy for epochs in watched.epochs for accuracy, _, _ in epochs])


def test_selection_without_validation_images_is_refused(tmp_path):
    config = load_config([*FEW, "train.select=validation", "+benchmark.validation_fraction=null"])
    with pytest.raises(ConfigError, match=r"^train\.select=validation needs validation images of experience 0, and"):
        run(config, tmp_path)


def test_only_what_is_asked_for_is_trained_and_the_head(tmp_path):
    words = [*FEW, "train.epochs=1", "method=ftp", "train.freeze_batch_norm=true"]
    run(load_config([*words, "train_only='*.3.*'"]), tmp_path / "some")
    run(load_config([*words, "method=linear_probe"]), tmp_path / "none")
    some, none = (load_file(tmp_path / name / "weights.safetensors") for name in ("some", "none"))
    changed = {name for name in some if not torch.equal(some[name], none[name])}
    assert {name for name in changed if not name.startswith("head.")} == {"backbone.3.weight"}
    with pytest.raises(ValueError, match=r"^train_only='\*\.conv2\.\*' matches no parameter; the "):
        run(load_config([*words, "train_only=['*.conv2.*']"]), tmp_path / "typo")
