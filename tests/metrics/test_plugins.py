"""ContinualMetrics and DistanceFromAnchor in Avalanche's strategies: figures worked by hand, with several streams."""

import copy
import io
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from avalanche.benchmarks import ni_benchmark, split_online_stream
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import TextLogger
from avalanche.models import IncrementalClassifier, MTSimpleMLP
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import JointTraining, Naive

from ftp_cl.benchmarks import split_digits
from ftp_cl.benchmarks.digits import Digits
from ftp_cl.benchmarks.scenario import DescribedScenario, ExperienceData, StreamKind, make_stream, transform_groups
from ftp_cl.metrics import ContinualMetrics, DistanceFromAnchor, average_forgetting, expected_calibration_error
from ftp_cl.metrics.plugins import PredictionCounts

SIZES = (4, 2, 5)  # of the test experiences, each of two classes
RIGHT = {  # row (experiences trained on) -> right predictions in each test experience
    "test": [(1, 0, 1), (4, 1, 0), (3, 2, 1), (2, 1, 5)],
    "ood_dark": [(0, 0, 0), (2, 0, 0), (2, 1, 0), (1, 0, 3)],
    "ood_odd": [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 1)],
}


class Recorded(torch.nn.Module):
    """Answers with logits that its inputs carry for each row."""

    def __init__(self):
        super().__init__()
        self.row = 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x[:, self.row] + 0 * self.weight


def logits(right, experience, sharpness):
    """Inputs [size, rows, classes] and targets of one experience."""
    size = SIZES[experience]
    targets = torch.arange(size) % 2 + 2 * experience
    x = torch.zeros(size, len(right), 6)
    for row, counts in enumerate(right):
        for k in range(size):
            answer = targets[k] if k < counts[experience] else (targets[k] + 1) % 6
            x[k, row, answer] = sharpness * (k + 1)
    return x, targets


def stream(name, right, kind=None):
    experiences = []
    for j in range(3):
        x, y = logits(right, j, 1.0)
        dataset = torch.utils.data.TensorDataset(x, y)
        dataset.targets = y.tolist()
        experiences.append(ExperienceData(dataset, range(len(y)), [2 * j, 2 * j + 1]))
    return make_stream(name, experiences, transform_groups(None, None), kind)


@pytest.fixture
def benchmark():
    rights = {"train": RIGHT["test"], **RIGHT}
    return DescribedScenario([stream(name, right) for name, right in rights.items()], {})


def make_strategy(model, *metrics, kind=Naive, **options):
    return kind(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=4,
        evaluator=EvaluationPlugin(*metrics, loggers=[]),
        **{"eval_mb_size": 3, **options},
    )


def play(benchmark, metrics, streams=("test", "ood_dark", "ood_odd"), start=0):
    """Evaluate streams after each experience (and before, from row 0), with the answers recorded for that row."""
    strategy = make_strategy(Recorded(), metrics, train_epochs=0)
    for row in range(4):
        if row:
            strategy.train(benchmark.train_stream[row - 1])
        strategy.model.row = row
        for name in streams if row >= start else ():
            strategy.eval(benchmark.streams[name])
    return strategy


MATRIX = 100 * np.array([[4 / 4, 1 / 2, 0 / 5], [3 / 4, 2 / 2, 1 / 5], [2 / 4, 1 / 2, 5 / 5]])


def test_figures_equal_those_worked_by_hand_with_ood_streams_evaluated_too(benchmark):
    metrics = ContinualMetrics()
    play(benchmark, metrics)
    assert np.allclose(metrics.accuracy_matrix(), MATRIX)
    result = metrics.result()
    expected = {
        "average_accuracy": (50 + 50 + 100) / 3,
        "average_incremental_accuracy": (100 + 87.5 + 200 / 3) / 3,
        "average_forgetting": (50 + 50) / 2,
        "stepwise_forgetting": (25 + (25 + 50) / 2) / 2,
        "backward_transfer": (-50 - 50) / 2,
        "forward_transfer": ((50 - 0) + (20 - 20)) / 2,
        "learning_accuracy": 100.0,
        "ood_average": (100 * 4 / 11 + 100 * 2 / 11) / 2,
        "relative_robustness": (300 / 11) / (800 / 11),  # both over images
    }
    assert {name: pytest.approx(value) for name, value in expected.items()} == {n: result[n] for n in expected}
    assert metrics.ood_accuracies() == {"ood_dark": pytest.approx(400 / 11), "ood_odd": pytest.approx(200 / 11)}


def test_weighing_by_size_gives_the_accuracy_over_all_samples(benchmark):
    metrics = ContinualMetrics(weight_by_size=True)
    play(benchmark, metrics)
    assert metrics.result()["average_accuracy"] == pytest.approx(100 * 8 / 11)
    assert metrics.result()["average_forgetting"] == pytest.approx((4 * 50 + 2 * 50) / 6)


def test_ood_streams_do_not_change_what_is_said_about_the_test_stream(benchmark):
    alone, together = ContinualMetrics(), ContinualMetrics()
    play(benchmark, alone, ("test",))
    play(benchmark, together, ("ood_dark", "test", "ood_odd"))
    assert alone.result().items() <= together.result().items()
    assert not [name for name in alone.result() if "ood" in name or "robustness" in name]


def test_calibration_error_is_that_of_all_samples_seen_so_far(benchmark):
    metrics = ContinualMetrics()
    play(benchmark, metrics)
    for stream, value in (("test", metrics.result()["expected_calibration_error"]), ("ood_dark", None)):
        inputs, targets = zip(*(logits(RIGHT[stream], j, 1.0) for j in range(3)), strict=True)
        probabilities = torch.cat(inputs)[:, 3].double().softmax(1)
        expected = expected_calibration_error(probabilities.numpy(), torch.cat(targets).numpy())
        if value is None:
            value = metrics.record.calibration_error(3, stream, range(3))
        assert value == pytest.approx(expected, abs=1e-4)


def test_values_that_need_what_was_not_evaluated_are_left_out(benchmark):
    metrics = ContinualMetrics()
    assert metrics.result() == {}
    play(benchmark, metrics, ("test",), start=1)
    assert "forward_transfer" not in metrics.result() and "average_forgetting" in metrics.result()
    only_last = ContinualMetrics()
    play(benchmark, only_last, ("test", "ood_odd"), start=3)
    assert set(only_last.result()) == {
        "average_accuracy",
        "expected_calibration_error",
        "ood_average",
        "ood_expected_calibration_error",
        "relative_robustness",
    }
    assert np.isnan(only_last.accuracy_matrix()[:2]).all()


def test_logs_carry_each_value_once_under_its_name(benchmark):
    metrics = ContinualMetrics()
    strategy = play(benchmark, metrics)
    logged = strategy.evaluator.get_all_metrics()
    assert len(logged["AverageAccuracy/eval_phase/test_stream"][1]) == 3
    assert logged["StepwiseForgetting/eval_phase/test_stream"][1][-1] == metrics.result()["stepwise_forgetting"]
    assert logged["OODAverage/eval_phase"][1][-1] == metrics.result()["ood_average"]


def test_a_second_evaluation_replaces_the_first(benchmark):
    metrics = ContinualMetrics()
    strategy = play(benchmark, metrics)
    before = metrics.result()
    strategy.eval(benchmark.streams["test"])
    strategy.eval([*benchmark.streams["ood_dark"], *benchmark.streams["test"]])
    assert metrics.result() == before


def test_accuracies_equal_avalanches_in_a_class_incremental_stream():
    metrics = ContinualMetrics()
    model = torch.nn.Sequential(torch.nn.Flatten(), IncrementalClassifier(64, 1))
    strategy = make_strategy(model, metrics, accuracy_metrics(experience=True), eval_mb_size=200)
    benchmark, rows = split_digits(5, shots=10), []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        results = strategy.eval(benchmark.test_stream)
        rows.append([results[f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{j:03}"] for j in range(5)])
        strategy.eval(benchmark.streams["ood_inverted"])
    assert np.allclose(metrics.accuracy_matrix(), 100 * np.array(rows))
    assert metrics.result()["average_forgetting"] == pytest.approx(average_forgetting(100 * np.array(rows)))


def test_task_incremental_streams_are_measured_with_the_head_of_each_task():
    metrics = ContinualMetrics()
    options = {"train_epochs": 2, "eval_mb_size": 200}
    strategy = make_strategy(MTSimpleMLP(input_size=64), metrics, accuracy_metrics(experience=True), **options)
    benchmark, rows = split_digits(5, return_task_id=True), []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        results = strategy.eval(benchmark.test_stream[: experience.current_experience + 1])
        row = [results.get(f"Top1_Acc_Exp/eval_phase/test_stream/Task{j:03}/Exp{j:03}", np.nan) for j in range(5)]
        rows.append(row)
    assert np.allclose(metrics.accuracy_matrix(), 100 * np.array(rows), equal_nan=True)
    assert metrics.result()["average_accuracy"] == pytest.approx(100 * np.mean(rows[-1]))


def test_evaluation_during_training_counts_for_the_experience_that_is_trained_on():
    model = torch.nn.Sequential(torch.nn.Flatten(), IncrementalClassifier(64, 1))
    metrics = ContinualMetrics()
    strategy = make_strategy(model, metrics, train_epochs=2, eval_every=1, eval_mb_size=200)
    benchmark = split_digits(5, shots=5)
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
    during = metrics.accuracy_matrix()
    strategy.eval(benchmark.test_stream)
    assert np.allclose(metrics.accuracy_matrix()[-1], during[-1]) and not np.isnan(during).any()


def test_parts_of_an_online_experience_count_as_one():
    metrics = ContinualMetrics()
    model = torch.nn.Sequential(torch.nn.Flatten(), IncrementalClassifier(64, 1))
    strategy = make_strategy(model, metrics, eval_mb_size=200)
    benchmark = split_digits(5, shots=8)
    for experience in benchmark.train_stream:
        for part in split_online_stream([experience], experience_size=8, access_task_boundaries=True):
            strategy.train(part)
        strategy.eval(benchmark.test_stream)
    assert metrics.accuracy_matrix().shape == (5, 5) and not np.isnan(metrics.accuracy_matrix()).any()


def counted(order, rows=5, seed=0):
    """Right predictions in each row and experience, drawn, and the accuracies of the rows that an order reaches."""
    rng = np.random.default_rng(seed)
    right = [[int(rng.integers(0, size + 1)) for size in SIZES] for _ in range(rows)]
    return right, 100 * np.array(right[1 : 1 + len(order)]) / np.array(SIZES)


@pytest.mark.parametrize("order", [[0, 1, 2, 0], [2, 1, 0], [0, 2], [2, 0, 0], [1]])
@pytest.mark.parametrize("weigh", [False, True])
def test_rows_are_trainings_and_columns_test_experiences_whatever_comes_when(order, weigh):
    right, matrix = counted(order)
    benchmark = DescribedScenario([stream("train", right), stream("test", right), stream("ood_same", right)], {})
    metrics = ContinualMetrics(weight_by_size=weigh)
    strategy = make_strategy(Recorded(), metrics, train_epochs=0)
    for row, number in enumerate(order, start=1):
        strategy.train(benchmark.train_stream[number])
        strategy.model.row = row
        strategy.eval(benchmark.streams["test"])
        strategy.eval(benchmark.streams["ood_same"])
    assert np.allclose(metrics.accuracy_matrix(), matrix[:, : max(order) + 1])
    seen = sorted(set(order))
    first = [order.index(number) for number in seen]
    assert metrics.first_rows() == [order.index(j) if j in order else None for j in range(max(order) + 1)]
    weights = np.array(SIZES)[seen] if weigh else np.ones(len(seen))
    result = metrics.result()
    assert result["average_accuracy"] == pytest.approx(np.average(matrix[-1, seen], weights=weights))
    assert result["learning_accuracy"] == pytest.approx(np.average(matrix[first, seen], weights=weights))
    assert ("average_forgetting" in result) == (len(order) > 1)
    if result["ood_average"]:
        assert result["relative_robustness"] == 1.0


def test_a_stream_is_ood_by_its_kind_and_without_one_by_its_name(benchmark):
    unlike = [("dark", StreamKind("ood")), ("ood_test", StreamKind("test")), ("ood_foreign", None), ("foreign", None)]
    streams = [stream(name, RIGHT["ood_dark"], kind) for name, kind in unlike]
    metrics = ContinualMetrics()
    play(DescribedScenario([*benchmark.streams.values(), *streams], {}), metrics, ("test", *dict(unlike)))
    assert list(metrics.ood_accuracies()) == ["dark", "ood_foreign"]
    metrics = ContinualMetrics(ood_prefix="for")
    play(DescribedScenario([*benchmark.streams.values(), *streams], {}), metrics, ("test", *dict(unlike)))
    assert list(metrics.ood_accuracies()) == ["dark", "foreign"]


def test_ood_is_compared_on_its_own_classes_with_its_own_weights(benchmark):
    """The OOD stream has four images of class 2 and one of class 3, nothing else."""
    x, _ = logits(RIGHT["test"], 0, 1.0)
    x = torch.cat([x, x[:1]])
    y = torch.tensor([2, 2, 2, 2, 3])
    dataset = torch.utils.data.TensorDataset(x, y)
    dataset.targets = y.tolist()
    empty = [ExperienceData(dataset, indices, [2 * j, 2 * j + 1]) for j, indices in enumerate([[], range(5), []])]
    ood = make_stream("ood_part", empty, transform_groups(None, None))
    benchmark = DescribedScenario([*benchmark.streams.values(), ood], {})
    metrics = ContinualMetrics()
    strategy = play(benchmark, metrics, ("test",))
    strategy.model.row = 3
    strategy.eval(benchmark.streams["ood_part"])
    # In row 3 the first of the two test images of experience 1 is right, of class 2: 100 % there, 0 % of class 3.
    predicted = x[:, 3].argmax(1)
    assert metrics.result()["relative_robustness"] == pytest.approx(float((predicted == y).float().mean()) / (4 / 5))


def test_a_domain_incremental_test_stream_is_compared_with_an_ood_stream_of_one_experience():
    def domains(name, rights):
        experiences = []
        for right in rights:
            x = torch.nn.functional.one_hot(torch.tensor([0] * right + [1] * (4 - right)), 2).float()[:, None]
            dataset = torch.utils.data.TensorDataset(x, torch.zeros(4, dtype=torch.long))
            dataset.targets = [0] * 4
            experiences.append(ExperienceData(dataset, range(4), [0, 1]))
        return make_stream(name, experiences, transform_groups(None, None))

    streams = [domains("train", [4, 3, 1]), domains("test", [4, 3, 1]), domains("ood_x", [2])]
    benchmark, metrics = DescribedScenario(streams, {}), ContinualMetrics()
    strategy = make_strategy(Recorded(), metrics, train_epochs=0)
    for number in (2, 1):
        strategy.train(benchmark.train_stream[number])
        strategy.eval(benchmark.streams["test"])
        strategy.eval(benchmark.streams["ood_x"])
    assert metrics.result()["relative_robustness"] == pytest.approx((2 / 4) / ((3 + 1) / 8))


def test_a_test_stream_of_one_experience_is_about_all_trainings():
    benchmark = ni_benchmark(Digits("train"), Digits("test"), n_experiences=3, seed=0)
    metrics = ContinualMetrics()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    strategy, column = make_strategy(model, metrics, accuracy_metrics(experience=True), eval_mb_size=200), []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        results = strategy.eval(benchmark.test_stream)
        column.append(100 * results["Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000"])
    assert np.allclose(metrics.accuracy_matrix(), np.array(column)[:, None])
    result = metrics.result()
    assert result["average_accuracy"] == pytest.approx(column[-1])
    assert result["average_incremental_accuracy"] == pytest.approx(np.mean(column))
    assert result["backward_transfer"] == pytest.approx(column[-1] - column[0])


def test_joint_training_has_one_row_and_all_columns():
    metrics = ContinualMetrics()
    right, matrix = counted([0])
    benchmark = DescribedScenario([stream("train", right), stream("test", right)], {})
    strategy = make_strategy(Recorded(), metrics, kind=JointTraining, train_epochs=0)
    strategy.train(benchmark.train_stream)
    strategy.model.row = 1
    strategy.eval(benchmark.test_stream)
    assert np.allclose(metrics.accuracy_matrix(), matrix)
    assert metrics.result()["average_accuracy"] == pytest.approx(matrix[0].mean())
    assert "average_forgetting" not in metrics.result()


def test_parts_whose_origin_is_hidden_from_training_count_as_one():
    metrics = ContinualMetrics()
    right, _ = counted([0, 1])
    benchmark = DescribedScenario([stream("train", right), stream("test", right)], {})
    strategy = make_strategy(Recorded(), metrics, train_epochs=0)
    for experience in benchmark.train_stream[:2]:
        for part in split_online_stream([experience], experience_size=1, access_task_boundaries=False):
            strategy.train(part)
            strategy.eval(benchmark.test_stream)
    assert metrics.first_rows() == [0, 1] and metrics.accuracy_matrix().shape == (2, 2)


def test_record_survives_pickle_and_copy(benchmark):
    metrics = ContinualMetrics()
    play(benchmark, metrics)
    for again in (pickle.loads(pickle.dumps(metrics)), copy.deepcopy(metrics)):
        assert again.result() == metrics.result()
    metrics.reset()
    assert metrics.result() == {} and metrics.accuracy_matrix().shape == (0, 0)


def test_a_diverged_model_is_measured_too(benchmark):
    metrics = ContinualMetrics()
    strategy = play(benchmark, metrics)
    strategy.model.weight.data.fill_(torch.nan)
    strategy.eval(benchmark.streams["test"])
    assert metrics.result()["average_accuracy"] < 50 and metrics.result()["expected_calibration_error"] >= 0


def test_works_with_a_logger(benchmark):
    metrics, written = ContinualMetrics(), io.StringIO()
    strategy = make_strategy(Recorded(), metrics, train_epochs=0)
    strategy.evaluator.loggers = [TextLogger(written)]
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.streams["test"])
    assert "AverageAccuracy/eval_phase/test_stream" in written.getvalue()


@pytest.mark.parametrize("anchor", ["initial", "previous"])
def test_distance_is_from_the_weights_before_training_or_before_the_experience(anchor):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    metric = DistanceFromAnchor(anchor)
    strategy = make_strategy(model, metric)
    weights = [copy.deepcopy(model.state_dict())]
    for experience in split_digits(5, shots=5).train_stream[:2]:
        strategy.train(experience)
        weights.append(copy.deepcopy(model.state_dict()))
    reference = weights[0 if anchor == "initial" else 1]
    for name in ("1.weight", "1.bias"):
        expected = float((weights[2][name].double() - reference[name].double()).norm())
        assert metric.result()[name] == pytest.approx(expected)
        logged = strategy.evaluator.get_all_metrics()[f"DistanceFromAnchor/train_phase/{name}"][1]
        assert len(logged) == 2 and logged[1] == metric.result()[name] > 0


def test_distance_of_a_grown_head_is_that_of_its_old_rows():
    model = torch.nn.Sequential(torch.nn.Flatten(), IncrementalClassifier(64, 2))
    metric = DistanceFromAnchor(parameters=lambda name: name.endswith("weight"))
    strategy = make_strategy(model, metric)
    for experience in split_digits(5, shots=5, fixed_class_order=range(10)).train_stream[:2]:
        strategy.train(experience)
    assert list(metric.result()) == ["1.classifier.weight"] and metric.result()["1.classifier.weight"] > 0
    with pytest.raises(ValueError, match="neither 'initial' nor 'previous'"):
        DistanceFromAnchor("first")


def test_predictions_may_be_among_some_classes_only():
    counts = PredictionCounts()
    strategy = SimpleNamespace(
        mb_output=torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0]]),
        mb_y=torch.tensor([1, 1]),
        mb_task_id=torch.zeros(2, dtype=torch.long),
        experience=SimpleNamespace(origin_stream=SimpleNamespace(name="ood_a"), current_experience=0),
    )
    for classes_of, expected in (({"ood_b": [1]}, 0.0), ({"ood_a": [1, 2, 7]}, 50.0), ({"ood_a": [1]}, 100.0)):
        counts.classes_of = classes_of
        counts.before_eval_exp(strategy)
        counts.after_eval_iteration(strategy)
        assert counts.record.accuracies(0, "ood_a", [0]).tolist() == [expected]
