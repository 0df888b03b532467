"""Distillation, replay, prototypes, joint training: against numbers by hand or independent loops."""

import copy

import numpy as np
import pytest
import torch
from avalanche.benchmarks import (
    CLScenario,
    benchmark_from_datasets,
    nc_benchmark,
    split_online_stream,
    with_classes_timeline,
)
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.models import as_multitask
from avalanche.training import JointTraining as AvalancheJointTraining
from avalanche.training.plugins import MASPlugin
from torch import nn
from torch.nn.functional import cross_entropy

from ftp_cl.models import EnsembleHead, LinearHead
from ftp_cl.plugins import (
    APER,
    AnchorPenalty,
    DarkExperienceReplay,
    FeatureDistillation,
    FixedRadiusPlugin,
    FreezeBatchNorm,
    HeadFirst,
    JointTraining,
    LDAEnsemble,
    LearningRateSchedule,
    PrototypeClassifier,
    SPDPlugin,
    SynapticIntelligence,
    TPGMPlugin,
    WiSEFT,
)
from ftp_cl.plugins.dark_experience import logit_distance
from ftp_cl.plugins.distillation import feature_distance
from ftp_cl.plugins.prototypes import feature_drift

# ---- distillation and replay ----------------------------------------------------------------------------------------


def test_feature_distance_by_hand():
    features = torch.tensor([[1.0, 0.0], [0.0, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 1.0], [0.0, 2.0]], requires_grad=True)
    distance = feature_distance(features, targets)
    assert distance.item() == pytest.approx((1 / 2 + 1 / 4) / 2)
    distance.backward()
    assert targets.grad is None and features.grad is not None


def test_distilled_training_equals_a_loop_by_hand(benchmark, vector_classifier, make_strategy, whole_batch):
    model = vector_classifier()
    strategy = make_strategy(model, FeatureDistillation(2.0), epochs=4)
    for experience in benchmark.train_stream:
        literal = copy.deepcopy(model)
        strategy.train(experience)
        literal.train()
        literal.adaptation(experience)
        teacher = copy.deepcopy(literal.backbone)
        optimizer = torch.optim.SGD(literal.parameters(), lr=0.1)
        inputs, targets = whole_batch(experience)
        for _ in range(4):
            optimizer.zero_grad()
            loss = cross_entropy(literal(inputs), targets)
            old, new = teacher(inputs).detach(), literal.backbone(inputs)
            (loss + 2.0 * (((new - old) ** 2).sum(1) / (old**2).sum(1)).mean()).backward()
            optimizer.step()
        for ours, theirs in zip(model.parameters(), literal.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not model.head._forward_pre_hooks


def test_synaptic_intelligence_equals_a_loop_by_hand(benchmark, vector_classifier, make_strategy, whole_batch):
    model = vector_classifier()
    plugin = SynapticIntelligence(si_lambda=1e4, eps=1e-3)
    strategy = make_strategy(model, plugin, epochs=4)
    importances: dict[str, torch.Tensor] = {}
    for experience in benchmark.train_stream:
        literal = copy.deepcopy(model)
        strategy.train(experience)
        literal.train()
        literal.adaptation(experience)
        optimizer = torch.optim.SGD(literal.parameters(), lr=0.1)
        inputs, targets = whole_batch(experience)
        weights = dict(literal.backbone.named_parameters())
        begun, paths = ({name: w.detach() * factor for name, w in weights.items()} for factor in (1, 0))
        for _ in range(4):
            optimizer.zero_grad()
            penalty = sum((importances[n] * (w - begun[n]) ** 2).sum() for n, w in weights.items() if importances)
            (cross_entropy(literal(inputs), targets) + 1e4 / 2 * penalty).backward()
            before = {name: w.detach().clone() for name, w in weights.items()}
            optimizer.step()
            for name, w in weights.items():
                paths[name] -= w.grad * (w.detach() - before[name])
        for name, w in weights.items():
            of_both = importances.get(name, 0) + paths[name] / ((w.detach() - begun[name]) ** 2 + 1e-3)
            importances[name] = of_both.clamp(max=1e-3)
            ours = plugin.ewc_data[1][f"backbone.{name}"].data.view_as(w)
            torch.testing.assert_close(ours, importances[name])
            assert ours.any()
        for ours, theirs in zip(model.parameters(), literal.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_stored_logits_are_compared_where_they_were_trained():
    stored = torch.tensor([[1.0, -1000.0], [2.0, 4.0]])
    logits = torch.tensor([[2.0, 5.0, 9.0], [2.0, 1.0, 9.0]])
    assert logit_distance(logits, stored).item() == pytest.approx((1 + 0 + 9) / 3)


def test_dark_experience_stores_equally_many_of_each_class_with_their_logits(
    benchmark, vector_classifier, make_strategy, watch
):
    model = vector_classifier()
    plugin = DarkExperienceReplay(mem_size=12, alpha=0.5, beta=1.0)
    losses = watch(lambda strategy: strategy.loss.item())
    strategy = make_strategy(model, plugin, losses, epochs=1)
    strategy.train(benchmark.train_stream[0])
    assert {label: len(kept) for label, (kept, _) in plugin.memory.items()} == {0: 6, 1: 6}
    kept, stored = plugin.memory[1]
    model.eval()
    torch.testing.assert_close(model(torch.stack([kept[i][0] for i in range(6)])), stored)
    strategy.train(benchmark.train_stream[1])
    assert {label: len(kept) for label, (kept, _) in plugin.memory.items()} == {0: 3, 1: 3, 2: 3, 3: 3}
    assert torch.equal(plugin.memory[1][1], stored[:3])
    assert losses.seen[1] > 0 and stored.shape[1] == 2 and plugin.memory[3][1].shape[1] == 4


def test_dark_experience_keeps_images_of_all_domains_of_a_class(data, vector_classifier, make_strategy):
    domains = [as_classification_dataset(data((12, 12), seed)) for seed in range(3)]
    benchmark = benchmark_from_datasets(train=domains, test=domains[:1])
    plugin = DarkExperienceReplay(mem_size=20)
    strategy = make_strategy(vector_classifier(), plugin, epochs=1)
    found = [{tuple(image.tolist()) for image, *_ in domain} for domain in domains]
    for experience in with_classes_timeline(benchmark).train_stream:
        strategy.train(experience)
    for images, logits in plugin.memory.values():
        shown = [tuple(images[i][0].tolist()) for i in range(len(images))]
        assert len(shown) == len(set(shown)) == len(logits) == 10
        counts = [sum(image in domain for image in shown) for domain in found]
        assert sum(counts) == 10 and min(counts) >= 1


def test_dark_experience_with_more_classes_than_room_goes_on(benchmark, vector_classifier, make_strategy):
    plugin = DarkExperienceReplay(mem_size=3)
    strategy = make_strategy(vector_classifier(), plugin, epochs=2)
    for experience in [*benchmark.train_stream, benchmark.train_stream[1]]:
        strategy.train(experience)
    assert {label: len(kept) for label, (kept, _) in plugin.memory.items()} == {0: 1, 1: 1, 2: 1}


# ---- prototypes -----------------------------------------------------------------------------------------------------


def test_drift_is_that_of_the_images_and_near_ones_count_most():
    torch.manual_seed(0)
    before, means = torch.randn(30, 4).double(), torch.randn(3, 4).double()
    shift = torch.tensor([1.0, 0.0, -2.0, 0.5]).double()
    torch.testing.assert_close(feature_drift(means, before, before + shift, 0.3), shift.expand(3, 4))
    before = torch.tensor([[0.0, 0.0], [10.0, 0.0]]).double()
    after = before + torch.tensor([[0.0, 1.0], [0.0, -1.0]]).double()
    near, middle = feature_drift(torch.tensor([[1.0, 0.0], [5.0, 0.0]]).double(), before, after, 0.3)
    assert near[1] > 0.99 and middle[1].abs() < 1e-9


def test_prototypes_classify_in_evaluation_and_the_head_that_is_trained_comes_back(
    benchmark, vector_classifier, make_strategy, whole_batch
):
    model = vector_classifier()
    plugin = PrototypeClassifier("ncm", "all", drift=True)
    strategy = make_strategy(model, plugin)
    trained = model.head
    for number, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        assert model.head is trained and trained.num_classes == 2 * (number + 1)
        inputs, targets = whole_batch(experience)
        mean = plugin.head.means[targets[-1]]
        with torch.no_grad():
            expected = model.backbone(inputs)[targets == targets[-1]].double().mean(0)
        torch.testing.assert_close(mean, expected)
        strategy.eval(benchmark.test_stream)
        assert model.head is plugin.head
    assert plugin.head.counts.tolist() == [12, 12, 8, 8]
    assert any(
        (parameter is trained.weight) for group in strategy.optimizer.param_groups for parameter in group["params"]
    )


@pytest.mark.parametrize(("features", "trains"), [("frozen", [False, False]), ("first", [True, False])])
def test_prototypes_train_the_backbone_where_they_say(benchmark, features, trains, vector_classifier, make_strategy):
    model = vector_classifier()
    strategy = make_strategy(model, PrototypeClassifier("lda", features))
    for experience, moves in zip(benchmark.train_stream, trains, strict=True):
        before = model.backbone[0].weight.detach().clone()
        strategy.train(experience)
        assert torch.equal(before, model.backbone[0].weight) != moves
        assert strategy.train_epochs == 5


def test_prototypes_do_not_know_classes_that_they_are_tested_on_only(benchmark, vector_classifier, make_strategy):
    plugin = PrototypeClassifier("lda", "all", drift=True)
    strategy = make_strategy(vector_classifier(), plugin)
    strategy.train(benchmark.train_stream[0])
    for _ in range(2):
        strategy.eval(benchmark.test_stream)
        assert plugin.head.active_units.nonzero().flatten().tolist() == [0, 1]


def test_an_ensemble_is_the_mean_of_standardised_logits_over_classes_that_all_have_seen():
    torch.manual_seed(0)
    first, second = LinearHead(3, initial_classes=5), LinearHead(2, initial_classes=5)
    first.activate([0, 2, 3])
    second.activate([0, 2, 3, 4])
    features = torch.randn(6, 5)
    logits = EnsembleHead([first, second], [3, 2])(features)
    seen, parts = [0, 2, 3], []
    for head, part in ((first, features[:, :3]), (second, features[:, 3:])):
        raw = head(part)[:, seen].detach().numpy()
        parts.append((raw - raw.mean(1, keepdims=True)) / raw.std(1, keepdims=True))
    torch.testing.assert_close(logits[:, seen].detach().numpy(), sum(parts) / 2, rtol=1e-5, atol=1e-5)
    assert (logits[:, [1, 4]] == -1000).all()
    shared = EnsembleHead([first, second], [3, 2])
    assert torch.equal(shared(features), logits)
    weighted = EnsembleHead([first, second], [3, 2], [0.5, 1.5])(features)
    torch.testing.assert_close(weighted[:, seen].detach().numpy(), (parts[0] + 3 * parts[1]) / 4, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="the first above 0"):
        EnsembleHead([first], [0])
    for wrong in ([1.0], [0.0, 1.0]):
        with pytest.raises(ValueError, match="as many weights above 0"):
            EnsembleHead([first, second], [3, 2], wrong)


def test_the_ensemble_decides_in_evaluation_and_training_is_as_without_it(
    benchmark, vector_classifier, make_strategy, whole_batch
):
    results = []
    for plugins in ([LDAEnsemble(shrinkage=0.5)], []):
        torch.manual_seed(0)
        model = vector_classifier()
        start = model.backbone[0].weight.detach().clone()
        strategy = make_strategy(model, *plugins)
        for experience in benchmark.train_stream:
            strategy.train(experience)
            trained = {name: weight.detach().clone() for name, weight in model.named_parameters()}
            strategy.eval(benchmark.test_stream)
        results.append(trained)
        if plugins:
            ensemble = model.head
            assert [head.active_units.sum() for head in ensemble.heads] == [4, 4, 4]
            assert ensemble.weights == [0.5, 0.5, 1.0]  # the second of two experiences with two classes each
            assert torch.equal(model.backbone.second[0].weight, start)
            assert not torch.equal(model.backbone.first[0].weight, start)
            inputs, _ = whole_batch(benchmark.test_stream[0])
            assert model(inputs).shape == (len(inputs), 4)
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_aper_compares_joined_features_with_class_means_and_trains_the_first_experience_alone(
    benchmark, vector_classifier, make_strategy, whole_batch
):
    model = vector_classifier()
    came = [parameter.detach().double().numpy().copy() for parameter in model.backbone.parameters()]
    strategy = make_strategy(model, APER())
    tuned, parts = [], []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
        tuned.append([parameter.detach().double().numpy().copy() for parameter in model.backbone.first.parameters()])
        parts.append([part.numpy() for part in whole_batch(experience)])
    assert all(map(np.array_equal, *tuned)) and not np.allclose(tuned[0][0], came[0])

    def joined(vectors):
        return np.hstack([np.tanh(vectors @ weight.T + bias) for weight, bias in (came, tuned[0])])

    vectors, targets = np.vstack([x for x, _ in parts]), np.hstack([y for _, y in parts])
    means = np.stack([joined(vectors[targets == label]).mean(axis=0) for label in range(4)])
    features = joined(vectors)
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(means, axis=1)
    np.testing.assert_allclose(
        model(torch.from_numpy(vectors)).detach(), 16 * (features @ means.T) / lengths, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("features", "passes"), [("frozen", [24, 16]), ("first", [24 + 5 * 24 + 24, 16])])
def test_an_experience_that_is_not_trained_takes_one_pass_over_its_images(
    benchmark, vector_classifier, make_strategy, features, passes
):
    model = vector_classifier()
    strategy = make_strategy(model, PrototypeClassifier("ncm", features))
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    for experience, expected in zip(benchmark.train_stream, passes, strict=True):  # imprinting, 5 epochs, statistics
        seen.clear()
        strategy.train(experience)
        assert sum(seen) == expected


def test_a_head_that_grows_without_training_stays_in_its_group(benchmark, vector_classifier, make_strategy):
    """With weights that are not the model's, nothing could be saved."""
    model = vector_classifier()
    groups = [{"params": part.parameters()} for part in (model.backbone, model.head)]
    strategy = make_strategy(model, PrototypeClassifier("lda", "frozen"), optimizer=torch.optim.SGD(groups, 0.1))
    for experience in reversed(list(benchmark.train_stream)):  # the head begins with two rows, for classes 0 and 1
        strategy.train(experience)
        found = [[id(weight) for weight in group["params"]] for group in strategy.optimizer.param_groups]
        assert found == [[id(weight) for weight in part.parameters()] for part in (model.backbone, model.head)]


def test_an_ensemble_is_not_trained_by_a_strategy_that_does_not_know_it(benchmark, vector_classifier, make_strategy):
    model = vector_classifier()
    strategy = make_strategy(model, LDAEnsemble())
    first, second = benchmark.train_stream
    strategy.train(first)
    strategy.eval(benchmark.test_stream)
    with pytest.raises(
        RuntimeError, match="ensemble that LDAEnsemble made of it for evaluation: train it with the same"
    ):
        make_strategy(model).train(second)


@pytest.mark.parametrize("make", [APER, LDAEnsemble, PrototypeClassifier])
def test_prototypes_serve_one_model_alone_in_its_strategy(
    benchmark, vector_classifier, make_strategy, body_and_head, make
):
    plugin, experience = make(), benchmark.train_stream[0]
    model = vector_classifier()
    strategy = make_strategy(model, plugin)
    strategy.train(experience)
    strategy.eval(benchmark.test_stream)
    other = vector_classifier()
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="knows the classes of another model: give each strategy"):
        make_strategy(other, plugin).train(experience)
    assert before.keys() == other.state_dict().keys()
    make_strategy(model, plugin).train(experience)
    with pytest.raises(ValueError, match="would take each other's place"):
        make_strategy(vector_classifier(), make(), PrototypeClassifier("ncm")).train(experience)
    with pytest.raises(
        TypeError, match=f"{make.__name__} needs a ContinualClassifier of ftp_cl.models, not Sequential"
    ):
        make_strategy(body_and_head(), make()).train(experience)


# ---- streams in parts, and in any order -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(1, 0), (1,), (0, 0, 1)])
def test_prototypes_train_the_backbone_on_what_comes_first(benchmark, order, vector_classifier, make_strategy):
    model = vector_classifier()
    strategy = make_strategy(model, PrototypeClassifier("ncm", "first"))
    moved = []
    for number in order:
        before = model.backbone[0].weight.detach().clone()
        strategy.train(benchmark.train_stream[number])
        moved.append(not torch.equal(before, model.backbone[0].weight))
    assert moved == [True, *[False] * (len(order) - 1)]
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("features", ["frozen", "first", "all"])
def test_prototypes_take_in_an_experience_in_parts_as_a_whole(
    benchmark, features, vector_classifier, make_strategy, whole_batch
):
    model, plugin = vector_classifier(), PrototypeClassifier("ncm", features)
    strategy = make_strategy(model, plugin, epochs=1)
    moved = []
    for part in split_online_stream(benchmark.train_stream, 8, access_task_boundaries=True):
        before = model.backbone[0].weight.detach().clone()
        strategy.train(part)
        moved.append(not torch.equal(before, model.backbone[0].weight))
        inputs, targets = whole_batch(part.origin_experience)
        if plugin.head.active_units.sum() == targets.max() + 1:  # it was the last part
            for label in targets.unique():
                mean = model.backbone(inputs)[targets == label].double().mean(0)
                torch.testing.assert_close(plugin.head.means[label], mean.detach())
    assert moved == {"frozen": [False] * 5, "first": [True] * 3 + [False] * 2, "all": [True] * 5}[features]
    assert plugin.head.counts.tolist() == [12, 12, 8, 8]


def test_prototypes_take_in_each_part_where_boundaries_are_hidden(benchmark, vector_classifier, make_strategy):
    parts = split_online_stream(benchmark.train_stream, 8)
    stream = next(iter(with_classes_timeline(CLScenario([parts])).streams.values()))
    plugin = PrototypeClassifier("lda", "frozen")
    strategy = make_strategy(vector_classifier(), plugin)
    for part in stream:
        strategy.train(part)
    assert plugin.head.counts.tolist() == [12, 12, 8, 8]
    with pytest.raises(ValueError, match="features='first' needs to know where an experience ends"):
        make_strategy(vector_classifier(), PrototypeClassifier("lda", "first")).train(next(iter(stream)))


def test_the_teacher_stays_while_an_experience_comes_in_parts(benchmark, vector_classifier, make_strategy, watch):
    model, plugin = vector_classifier(), FeatureDistillation()
    teachers = watch(lambda strategy: plugin.teacher.backbone[0].weight.clone())
    strategy = make_strategy(model, plugin, teachers, epochs=1)
    starts, lengths = [], []
    for part in split_online_stream(benchmark.train_stream, 8, access_task_boundaries=True):
        if part.is_first_subexp:
            starts.append(model.backbone[0].weight.detach().clone())
            lengths.append(part.sub_stream_length)
        strategy.train(part)
    expected = [start for start, length in zip(starts, lengths, strict=True) for _ in range(length)]
    assert len(expected) == 5 and all(map(torch.equal, teachers.seen, expected))
    assert not torch.equal(*starts) and plugin.teacher is None


def test_dark_experience_chooses_among_all_images_of_an_experience_in_parts(
    benchmark, vector_classifier, make_strategy
):
    plugin = DarkExperienceReplay(mem_size=12)
    strategy = make_strategy(vector_classifier(), plugin, epochs=1)
    sizes = []
    for part in split_online_stream(benchmark.train_stream, 8, access_task_boundaries=True):
        strategy.train(part)
        sizes.append({label: len(kept) for label, (kept, _) in plugin.memory.items()})
    assert sizes == [{}, {}, {0: 6, 1: 6}, {0: 6, 1: 6}, {0: 3, 1: 3, 2: 3, 3: 3}]


@pytest.mark.parametrize("ids_begin_anew", [True, False])
def test_dark_experience_asks_the_head_of_each_task(data, make_strategy, watch, ids_begin_anew):
    benchmark = nc_benchmark(
        data(), data(), n_experiences=2, task_labels=True, fixed_class_order=[0, 1, 2, 3],
        class_ids_from_zero_in_each_exp=ids_begin_anew,
    )  # fmt: skip
    torch.manual_seed(0)
    model = as_multitask(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)), "2")
    plugin = DarkExperienceReplay(mem_size=8, alpha=0.5, beta=1.0)
    replayed = watch(lambda strategy: strategy.loss.item())
    strategy = make_strategy(model, plugin, replayed, epochs=1)
    strategy.train(benchmark.train_stream[0])
    first = {label: logits.clone() for label, (_, logits) in plugin.memory.items()}
    strategy.train(benchmark.train_stream[1])
    labels = [0, 1] if ids_begin_anew else [2, 3]
    assert {label: len(kept) for label, (kept, _) in plugin.memory.items()} == dict.fromkeys(
        [(0, 0), (0, 1), *((1, label) for label in labels)], 2
    )
    for (task, label), (kept, logits) in plugin.memory.items():
        assert {(int(kept[i][-1]), int(kept[i][1])) for i in range(len(kept))} == {(task, label)}
        if task == 0:
            torch.testing.assert_close(logits, first[task, label][:2])
        else:
            with torch.no_grad():
                alone = model.eval()(torch.stack([kept[i][0] for i in range(2)]), task)
            torch.testing.assert_close(logits, alone)


# ---- joint training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("avalanche", [True, False])
def test_joint_training_shows_plugins_all_that_it_trains_on(benchmark, vector_classifier, make_strategy, avalanche):
    ensemble, dark = LDAEnsemble(), DarkExperienceReplay(mem_size=8)
    model = vector_classifier()
    if avalanche:
        strategy = AvalancheJointTraining(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), criterion=nn.CrossEntropyLoss(),
            plugins=[ensemble, dark], evaluator=None, train_mb_size=100, train_epochs=2,
        )  # fmt: skip
        strategy.train(benchmark.train_stream)
    else:
        strategy = make_strategy(model, JointTraining(), ensemble, dark, epochs=2)
        for number in (1, 0):
            strategy.train(benchmark.train_stream[number])
    inputs = torch.stack([item[0] for experience in benchmark.train_stream for item in experience.dataset])
    targets = torch.tensor([item[1] for experience in benchmark.train_stream for item in experience.dataset])
    assert ensemble.head.counts.tolist() == ensemble.frozen_head.counts.tolist() == [12, 12, 8, 8]
    for label in range(4):
        expected = model.backbone(inputs[targets == label]).detach().double().mean(0)
        torch.testing.assert_close(ensemble.head.means[label], expected)
    assert {label: len(kept) for label, (kept, _) in dark.memory.items()} == dict.fromkeys(range(4), 2)
    strategy.eval(benchmark.test_stream)
    assert model.head.weights == [1.0, 1.0, 1.0]  # all classes were trained on


@pytest.mark.parametrize("joint_first", [True, False])
def test_two_methods_that_skip_an_experience_give_the_epochs_back(
    benchmark, vector_classifier, make_strategy, joint_first
):
    plugins = [JointTraining(), PrototypeClassifier("ncm", "first")]
    strategy = make_strategy(vector_classifier(), *(plugins if joint_first else plugins[::-1]), epochs=3)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        assert strategy.train_epochs == 3


def test_joint_training_takes_all_data_once_and_leaves_every_parameter_in_its_group(
    benchmark, vector_classifier, make_strategy, watch
):
    model = vector_classifier()
    groups = [{"params": model.backbone.parameters(), "lr": 0.1}, {"params": model.head.parameters(), "lr": 0.2}]
    sizes = watch(lambda strategy: len(strategy.mb_x))
    strategy = make_strategy(model, JointTraining(), sizes, epochs=2, optimizer=torch.optim.SGD(groups, lr=1.0))
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert sizes.seen == [40, 40] and strategy.train_epochs == 2
    backbone, head = (group["params"] for group in strategy.optimizer.param_groups)
    assert len(head) == 1 and head[0] is model.head.weight and head[0].shape == (4, 5)
    assert {id(p) for p in backbone} == {id(p) for p in model.backbone.parameters()}


# ---- all passes -----------------------------------------------------------------------------------------------------


def test_frozen_running_statistics_stay_in_passes_that_plugins_make(data, make_strategy):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    benchmark = nc_benchmark(data(), data(), n_experiences=2, task_labels=False)
    strategy = make_strategy(model, MASPlugin(), FreezeBatchNorm(), epochs=1)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert model[1].num_batches_tracked == 0 and torch.equal(model[1].running_mean, torch.zeros(5))
    assert not model[1]._forward_pre_hooks


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: AnchorPenalty("l1"), "'l1'"),
        (lambda: AnchorPenalty(alpha=-1), "alpha=-1"),
        (lambda: SPDPlugin(-1.0), "weight_decay=-1.0"),
        (lambda: FixedRadiusPlugin(-1.0), "radius=-1.0"),
        (lambda: TPGMPlugin("epoch"), "'epoch'"),
        (lambda: TPGMPlugin(proj_freq=0), "proj_freq=0"),
        (lambda: TPGMPlugin(radius_data="test"), "'test'"),
        (lambda: TPGMPlugin(held_out=1.0), "held_out=1.0"),
        (lambda: TPGMPlugin(mu=0), "mu=0"),
        (lambda: WiSEFT(1.5), "alpha=1.5"),
        (lambda: WiSEFT(anchor="first"), "'first'"),
        (lambda: HeadFirst(2), "share=2"),
        (lambda: FeatureDistillation(-1), "strength=-1"),
        (lambda: DarkExperienceReplay(0), "mem_size=0"),
        (lambda: DarkExperienceReplay(alpha=-1), "alpha=-1"),
        (lambda: PrototypeClassifier("knn"), "'knn'"),
        (lambda: PrototypeClassifier(features="last"), "'last'"),
        (lambda: PrototypeClassifier("ranpac", drift=True), "ranpac"),
        (lambda: PrototypeClassifier(bandwidth=0), "bandwidth=0"),
        (lambda: PrototypeClassifier(shrinkage=2), "2"),
        (lambda: LearningRateSchedule(schedule="linear"), "'linear'"),
    ],
)
def test_a_wrong_option_is_named(make, told):
    with pytest.raises(ValueError, match=told):
        make()
