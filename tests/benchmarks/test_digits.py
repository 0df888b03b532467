"""The digits, and Avalanche's strategies on the streams that are cut from them."""

import pickle

import pytest
import torch
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import IncrementalClassifier, MTSimpleMLP, SimpleMLP
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import AGEM, DER, EWC, LwF, Naive

from ftp_cl.benchmarks import Digits, split_digits


class GrowingMLP(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU())
        self.head = IncrementalClassifier(32, initial_out_features=1)

    def forward(self, x):
        return self.head(self.features(x))


def strategy_of(kind, model, **options):
    return kind(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=32,
        eval_mb_size=256,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True, stream=True)),
        **options,
    )


def test_digits_are_float_tensors_in_0_1():
    for split, count in (("train", 1258), ("test", 539)):
        dataset = Digits(split)
        assert len(dataset) == len(dataset.targets) == count
        image, target = dataset[7]
        assert image.shape == (1, 8, 8) and image.dtype == torch.float32
        assert image.min() >= 0 and image.max() <= 1 and target == dataset.targets[7]


def test_channels_and_size_change_the_shape_only():
    image, target = Digits("test", channels=3, size=20)[0]
    assert image.shape == (3, 20, 20) and torch.equal(image[0], image[2])
    plain, same = Digits("test")[0]
    assert target == same and torch.isclose(image.mean(), plain.mean(), atol=0.05)


def test_inverted_digits_are_the_same_digits_dark_on_bright():
    plain, inverted = Digits("test"), Digits("test", inverted=True)
    assert plain.targets == inverted.targets
    assert torch.equal(inverted[3][0], 1 - plain[3][0])


def test_pickled_digits_are_small_and_equal():
    dataset = Digits("train", inverted=True, channels=3)
    stored = pickle.dumps(dataset)
    assert len(stored) < 1000 and torch.equal(pickle.loads(stored).data, dataset.data)


def test_streams_share_no_image_and_every_class_is_divided_alike():
    description = split_digits(validation_fraction=0.25).description
    assert list(description["stream_sizes"]) == ["train", "test", "validation", "ood_inverted"]
    sizes = {name: sum(per_experience) for name, per_experience in description["stream_sizes"].items()}
    assert sizes["train"] + sizes["validation"] == 1258 and sizes["test"] == sizes["ood_inverted"] == 539
    for members in description["validation_identities"].values():
        assert 30 <= len(members) <= 32


def test_seed_decides_validation_and_order_but_not_the_test_images():
    first, again, other = (split_digits(seed=seed, fixed_class_order=range(10)) for seed in (0, 0, 1))
    assert first.description == again.description
    assert first.description["validation_identities"] != other.description["validation_identities"]
    for mine, theirs in zip(first.test_stream, other.test_stream, strict=True):
        assert torch.equal(mine.dataset[11][0], theirs.dataset[11][0])


@pytest.mark.parametrize("make_model", [lambda: SimpleMLP(input_size=64, num_classes=10), GrowingMLP])
def test_naive_learns_and_is_evaluated_on_every_stream(make_model):
    benchmark = split_digits(1)
    strategy = strategy_of(Naive, make_model(), train_epochs=4)
    strategy.train(benchmark.train_stream[0])
    accuracy = {}
    for name, stream in benchmark.streams.items():
        results = strategy.eval(stream)
        accuracy[name] = results[f"Top1_Acc_Stream/eval_phase/{name}_stream/Task000"]
    assert accuracy["test"] > 0.85 and accuracy["validation"] > 0.85
    assert accuracy["ood_inverted"] < 0.5


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Naive, {}),
        (LwF, {"alpha": 1.0, "temperature": 2.0}),
        (EWC, {"ewc_lambda": 1.0}),
        (DER, {"mem_size": 50}),
        (AGEM, {"patterns_per_exp": 20, "sample_size": 20}),
    ],
)
def test_avalanche_strategies_run_through_a_stream_with_a_growing_head(kind, options):
    benchmark = split_digits(5, shots=20)
    model = SimpleMLP(input_size=64, num_classes=10) if kind is DER else GrowingMLP()
    strategy = strategy_of(kind, model, train_epochs=1, **options)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    for stream in benchmark.streams.values():
        strategy.eval(stream)


@pytest.mark.parametrize("kind", [Naive, LwF])
def test_a_head_per_task_is_trained_and_evaluated_with_task_labels(kind):
    benchmark = split_digits(5, return_task_id=True)
    options = {"alpha": 1.0, "temperature": 2.0} if kind is LwF else {}
    strategy = strategy_of(kind, MTSimpleMLP(input_size=64), train_epochs=2, **options)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    results = strategy.eval(benchmark.test_stream)
    accuracy = [results[f"Top1_Acc_Exp/eval_phase/test_stream/Task{i:03}/Exp{i:03}"] for i in range(5)]
    assert accuracy[-1] > 0.9 and min(accuracy) > 0.3


def test_checkpoint_with_a_replay_buffer_carries_no_images(tmp_path, monkeypatch):
    benchmark = split_digits(5)
    strategy = strategy_of(Naive, GrowingMLP(), train_epochs=1, plugins=[ReplayPlugin(mem_size=40)])
    strategy.train(benchmark.train_stream[0])
    # The optimizer is left out because Avalanche 0.6.0 cannot store those of newer versions of torch.
    save_checkpoint(strategy, tmp_path / "checkpoint", exclude=["optimizer"])
    assert (tmp_path / "checkpoint").stat().st_size < 100_000  # the images alone are 322 kB

    read = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: read(*args, **{**kwargs, "weights_only": False}))
    loaded, finished = maybe_load_checkpoint(
        strategy_of(Naive, GrowingMLP()), tmp_path / "checkpoint", unique_objects=benchmark
    )
    assert finished == 1
    buffer = loaded.plugins[0].storage_policy.buffer
    assert len(buffer) == 40
    assert all(source is benchmark_source(benchmark) for source in sources(buffer._flat_data))
    strategy.train(benchmark.train_stream[1])


def sources(data):
    """The datasets at the leaves of an Avalanche dataset."""
    return [leaf for part in data._datasets for leaf in sources(part)] if hasattr(data, "_datasets") else [data]


def benchmark_source(benchmark):
    return sources(benchmark.train_stream[0].dataset._flat_data)[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Digits("tset"), "did you mean 'test'"),
        (lambda: Digits("test", channels=2), "channels=2 is neither 1 nor 3"),
        (lambda: split_digits(4), "use one of 1, 2, 5, 10"),
        (lambda: split_digits(5.0), "n_experiences=5.0"),
        (lambda: split_digits(seed=1.5), "seed=1.5 must be a whole number"),
        (lambda: split_digits(shots=2.5), "shots=2.5 is no number of images"),
        (lambda: split_digits(shots=101), "Class '0' has 100 training identities beside 25 for validation"),
    ],
)
def test_wrong_arguments_raise_one_clear_sentence(call, message, one_sentence):
    one_sentence(call, message)
