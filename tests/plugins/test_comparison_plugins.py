"""The methods that FTP is compared with, as Avalanche plugins: against numbers by hand or independent loops."""

import copy

import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    nc_benchmark,
    split_online_stream,
    with_classes_timeline,
)
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import MASPlugin, ReplayPlugin
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import TensorDataset

from ftp_cl.models import ContinualClassifier, CosineHead, EnsembleHead, LinearHead
from ftp_cl.optim import AdamSPD
from ftp_cl.plugins import (
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
    TPGMPlugin,
    WiSEFT,
)
from ftp_cl.plugins.dark_experience import logit_distance
from ftp_cl.plugins.distillation import feature_distance
from ftp_cl.plugins.prototypes import feature_drift
from ftp_cl.plugins.schedule import learning_rate_factor


def data(sizes=(12, 12, 8, 8), seed=0):
    torch.manual_seed(seed)
    targets = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    dataset = TensorDataset(torch.randn(len(targets), 6) + targets[:, None], targets)
    dataset.targets = targets.tolist()
    return as_classification_dataset(dataset)


@pytest.fixture
def benchmark():
    """Two experiences of two classes, 24 and 16 vectors."""
    return nc_benchmark(data(), data(), n_experiences=2, task_labels=False, fixed_class_order=[0, 1, 2, 3])


def body_and_head():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))


def vector_classifier():
    """A ContinualClassifier whose images are vectors."""
    torch.manual_seed(1)
    model = ContinualClassifier(nn.Sequential(nn.Linear(6, 5), nn.Tanh()), 5, head=CosineHead(5))
    return model


def make_strategy(model, *plugins, batch_size=100, epochs=5, optimizer=None):
    return Naive(
        model=model, optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(), train_mb_size=batch_size, train_epochs=epochs, eval_mb_size=50,
        plugins=list(plugins), evaluator=None,
    )  # fmt: skip


def whole_batch(experience):
    rows = [experience.dataset[i] for i in range(len(experience.dataset))]
    return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])


class Watch(SupervisedPlugin):
    """Calls a function before each update and keeps what it returns."""

    def __init__(self, look):
        super().__init__()
        self.look, self.seen = look, []

    def before_update(self, strategy, **kwargs):
        self.seen.append(self.look(strategy))


# ---- penalties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ["previous", "initial"])
@pytest.mark.parametrize("penalty", ["l2_sp", "mars_sp"])
def test_penalised_training_equals_a_loop_by_hand(benchmark, penalty, anchor):
    model = body_and_head()
    literal = copy.deepcopy(model)
    strategy = make_strategy(model, AnchorPenalty(penalty, alpha=0.3, beta=0.2, anchor=anchor))
    for experience in benchmark.train_stream:
        strategy.train(experience)
    optimizer = torch.optim.SGD(literal.parameters(), lr=0.1)
    start = None
    for experience in benchmark.train_stream:
        if anchor == "previous" or start is None:
            start = [literal[0].weight.detach().clone(), literal[0].bias.detach().clone()]
        for _ in range(5):
            weight, bias = literal[0].weight - start[0], literal[0].bias - start[1]
            if penalty == "l2_sp":
                distance = (weight**2).sum() / 2 + (bias**2).sum() / 2
            else:
                distance = weight.abs().sum(1).max() + bias.abs().sum()
            head = (literal[2].weight ** 2).sum() / 2 + (literal[2].bias ** 2).sum() / 2
            inputs, targets = whole_batch(experience)
            optimizer.zero_grad()
            (cross_entropy(literal(inputs), targets) + 0.3 * distance + 0.2 * head).backward()
            optimizer.step()
    for ours, theirs in zip(model.parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


# ---- rules around each step -----------------------------------------------------------------------------------------


def test_a_fixed_radius_holds_in_every_experience(benchmark):
    model = body_and_head()
    strategy = make_strategy(model, FixedRadiusPlugin(0.05))
    for experience in benchmark.train_stream:
        before, head = model[0].weight.detach().clone(), model[2].weight.detach().clone()
        strategy.train(experience)
        distances = (model[0].weight - before).abs().sum(1)
        assert distances.max() <= 0.05 + 1e-6 and distances.max() > 0.049
        assert (model[2].weight - head).abs().sum() > 0.1, "the head is free"
    assert not strategy.optimizer._optimizer_step_post_hooks


def test_spd_plugin_with_adam_is_adam_spd(benchmark):
    model, experience = body_and_head(), benchmark.train_stream[0]
    literal = copy.deepcopy(model)
    adam = torch.optim.Adam(model.parameters(), lr=0.05)
    make_strategy(model, SPDPlugin(0.7), optimizer=adam, epochs=20).train(experience)
    body = list(literal[0].parameters())
    groups = [{"params": body, "pre": [p.detach().clone() for p in body]}, {"params": list(literal[2].parameters())}]
    optimizer = AdamSPD(groups, lr=0.05, weight_decay=0.7)
    inputs, targets = whole_batch(experience)
    for _ in range(20):
        optimizer.zero_grad()
        cross_entropy(literal(inputs), targets).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


# ---- TPGM and WiSE-FT -----------------------------------------------------------------------------------------------


def test_tpgm_does_not_train_on_what_it_holds_out(benchmark):
    seen = Watch(lambda strategy: strategy.mb_x.clone())
    plugin = TPGMPlugin(held_out=0.25)
    learned_on = []
    plugin.after_update = lambda strategy, **kwargs: learned_on.append(plugin._held_out_data)
    make_strategy(body_and_head(), plugin, seen, epochs=1).train(benchmark.train_stream[0])
    trained = torch.cat(seen.seen)
    held = torch.stack([learned_on[0][i][0] for i in range(len(learned_on[0]))])
    assert len(trained) == 18 and len(held) == 6
    everything = {tuple(row.tolist()) for row in torch.cat([trained, held])}
    assert len(everything) == 24
    assert sorted(learned_on[0].targets) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("when", ["step", "experience"])
def test_tpgm_leaves_rows_within_its_radii(benchmark, when):
    model = body_and_head()
    plugin = TPGMPlugin(when, iterations=1 if when == "step" else 20)
    strategy = make_strategy(model, plugin)
    for experience in benchmark.train_stream:
        before = model[0].weight.detach().clone()
        strategy.train(experience)
        distances = (model[0].weight.detach() - before).abs().sum(1)
        assert 0 < distances.max() <= plugin.tpgm.radii[0] * (1 + 1e-5)
    assert plugin.tpgm.names == ["0.weight", "0.bias"]


def test_tpgm_learns_as_often_as_proj_freq_says(benchmark):
    plugin = TPGMPlugin(proj_freq=3)
    make_strategy(body_and_head(), plugin, epochs=7).train(benchmark.train_stream[0])
    assert plugin._drawn == 3, "in iterations 0, 3 and 6"


@pytest.mark.parametrize(("anchor", "stays"), [("initial", True), ("previous", False)])
def test_the_radii_of_tpgm_stay_as_long_as_the_anchor_does(benchmark, anchor, stays):
    plugin = TPGMPlugin(anchor=anchor)
    strategy = make_strategy(body_and_head(), plugin, epochs=3)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert plugin.tpgm.state_dict()["adam"]["state"][0]["step"] == (6 if stays else 3)


@pytest.mark.parametrize("plugin", [WiSEFT(), TPGMPlugin("experience")])
def test_what_acts_at_the_end_of_an_experience_refuses_online_streams(benchmark, plugin):
    strategy = make_strategy(body_and_head(), plugin, epochs=1)
    with pytest.raises(ValueError, match="online stream has none"):
        strategy.train(next(iter(split_online_stream(benchmark.train_stream, experience_size=12))))


def test_wise_ft_leaves_an_experience_without_training_alone(benchmark):
    model = body_and_head()
    strategy = make_strategy(model, WiSEFT(0.5, anchor="initial"))
    strategy.train(benchmark.train_stream[0])
    before = model[0].weight.detach().clone()
    strategy.train_epochs = 0
    strategy.train(benchmark.train_stream[1])
    assert torch.equal(model[0].weight, before)


def test_an_anchor_of_another_model_is_refused_and_wrapped_names_are_known(benchmark):
    start = body_and_head()
    given = {f"module.{name}": value.clone() for name, value in start.state_dict().items()}
    plugin = WiSEFT(0.0, anchor=given)
    model = body_and_head()
    make_strategy(model, plugin).train(benchmark.train_stream[0])
    assert torch.equal(model[0].weight, start[0].weight)
    with pytest.raises(ValueError, match=r"None of the anchor's tensors \(other.*0\.weight"):
        make_strategy(body_and_head(), WiSEFT(anchor={"other": torch.ones(2)})).train(benchmark.train_stream[0])


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_wise_ft_interpolates_the_body_and_keeps_the_head(benchmark, alpha):
    model, plain = body_and_head(), body_and_head()
    start = model[0].weight.detach().clone()
    for each, plugins in ((model, [WiSEFT(alpha)]), (plain, [])):
        make_strategy(each, *plugins).train(benchmark.train_stream[0])
    torch.testing.assert_close(model[0].weight.detach(), (1 - alpha) * start + alpha * plain[0].weight.detach())
    torch.testing.assert_close(model[2].weight, plain[2].weight)


# ---- training in stages ---------------------------------------------------------------------------------------------


def test_the_head_is_trained_first_and_what_was_frozen_stays_frozen(benchmark):
    model = body_and_head()
    model[0].bias.requires_grad_(False)
    bodies = Watch(lambda strategy: model[0].weight.detach().clone())
    heads = Watch(lambda strategy: model[2].weight.detach().clone())
    strategy = make_strategy(model, HeadFirst(0.4), bodies, heads, epochs=5)
    strategy.train(benchmark.train_stream[0])
    moved = [not torch.equal(a, b) for a, b in zip(bodies.seen, bodies.seen[1:], strict=False)]
    assert moved == [False, False, True, True]
    assert not torch.equal(heads.seen[0], heads.seen[1])
    assert model[0].weight.requires_grad and not model[0].bias.requires_grad
    strategy.train(benchmark.train_stream[1])
    assert torch.equal(bodies.seen[5], bodies.seen[7]) and not torch.equal(bodies.seen[7], bodies.seen[8])


def test_lp_ft_needs_an_epoch_for_the_head(benchmark):
    with pytest.raises(ValueError, match=r"share=0.5 of 1 epochs is none"):
        make_strategy(body_and_head(), HeadFirst(0.5), epochs=1).train(benchmark.train_stream[0])


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_rates_follow_the_schedule_in_experiences_of_unequal_length(benchmark, schedule):
    rates = Watch(lambda strategy: [group["lr"] for group in strategy.optimizer.param_groups])
    model = body_and_head()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.4}]
    strategy = make_strategy(
        model, LearningRateSchedule(0.25, schedule), rates, batch_size=4, epochs=2,
        optimizer=torch.optim.SGD(groups, lr=1.0),
    )  # fmt: skip
    for experience in benchmark.train_stream:
        strategy.train(experience)
        assert [group["lr"] for group in strategy.optimizer.param_groups] == [0.1, 0.4]
    expected = []
    for iterations in (12, 8):
        optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.4)], lr=1.0)
        scheduler = LambdaLR(optimizer, learning_rate_factor(iterations, 0.25, schedule))
        for _ in range(iterations):
            expected.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
    torch.testing.assert_close(torch.tensor(rates.seen), torch.tensor(expected))
    assert rates.seen[0] == pytest.approx([0.1 / 3, 0.4 / 3])


def test_warm_up_rises_to_the_full_rate_and_the_cosine_falls_from_there():
    factor = learning_rate_factor(10, 0.4, "cosine")
    assert [factor(i) for i in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [factor(i) for i in (4, 7)] == pytest.approx([1.0, 0.5])
    assert 0 < factor(9) < 0.07
    assert [learning_rate_factor(10, 0.0, "constant")(i) for i in (0, 9)] == [1.0, 1.0]
    assert learning_rate_factor(4, 1.0, "cosine")(3) == 1.0
    with pytest.raises(ValueError, match=r"warmup=1.5"):
        learning_rate_factor(4, 1.5, "cosine")


def test_the_schedule_counts_the_batches_that_replay_makes(benchmark):
    rates = Watch(lambda strategy: strategy.optimizer.param_groups[0]["lr"])
    strategy = make_strategy(
        body_and_head(), ReplayPlugin(20), LearningRateSchedule(0.0), rates, batch_size=4, epochs=1
    )  # fmt: skip
    for experience in benchmark.train_stream:
        strategy.train(experience)
    length = len(rates.seen) - 6
    factor = learning_rate_factor(length, 0.0, "cosine")
    assert rates.seen[6:] == pytest.approx([0.1 * factor(i) for i in range(length)])


# ---- distillation and replay ----------------------------------------------------------------------------------------


def test_feature_distance_by_hand():
    features = torch.tensor([[1.0, 0.0], [0.0, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 1.0], [0.0, 2.0]], requires_grad=True)
    distance = feature_distance(features, targets)
    assert distance.item() == pytest.approx((1 / 2 + 1 / 4) / 2)
    distance.backward()
    assert targets.grad is None and features.grad is not None


def test_distilled_training_equals_a_loop_by_hand(benchmark):
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


def test_stored_logits_are_compared_where_they_were_trained():
    stored = torch.tensor([[1.0, -1000.0], [2.0, 4.0]])
    logits = torch.tensor([[2.0, 5.0, 9.0], [2.0, 1.0, 9.0]])
    assert logit_distance(logits, stored).item() == pytest.approx((1 + 0 + 9) / 3)


def test_dark_experience_stores_equally_many_of_each_class_with_their_logits(benchmark):
    model = vector_classifier()
    plugin = DarkExperienceReplay(mem_size=12, alpha=0.5, beta=1.0)
    losses = Watch(lambda strategy: strategy.loss.item())
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


def test_dark_experience_keeps_images_of_all_domains_of_a_class():
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


def test_dark_experience_with_more_classes_than_room_goes_on(benchmark):
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


def test_prototypes_classify_in_evaluation_and_the_head_that_is_trained_comes_back(benchmark):
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
def test_prototypes_train_the_backbone_where_they_say(benchmark, features, trains):
    model = vector_classifier()
    strategy = make_strategy(model, PrototypeClassifier("lda", features))
    for experience, moves in zip(benchmark.train_stream, trains, strict=True):
        before = model.backbone[0].weight.detach().clone()
        strategy.train(experience)
        assert torch.equal(before, model.backbone[0].weight) != moves
        assert strategy.train_epochs == 5


def test_prototypes_do_not_know_classes_that_they_are_tested_on_only(benchmark):
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


def test_the_ensemble_decides_in_evaluation_and_training_is_as_without_it(benchmark):
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


# ---- joint training -------------------------------------------------------------------------------------------------


def test_joint_training_takes_all_data_once_and_leaves_every_parameter_in_its_group(benchmark):
    model = vector_classifier()
    groups = [{"params": model.backbone.parameters(), "lr": 0.1}, {"params": model.head.parameters(), "lr": 0.2}]
    sizes = Watch(lambda strategy: len(strategy.mb_x))
    strategy = make_strategy(model, JointTraining(), sizes, epochs=2, optimizer=torch.optim.SGD(groups, lr=1.0))
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert sizes.seen == [40, 40] and strategy.train_epochs == 2
    backbone, head = (group["params"] for group in strategy.optimizer.param_groups)
    assert len(head) == 1 and head[0] is model.head.weight and head[0].shape == (4, 5)
    assert {id(p) for p in backbone} == {id(p) for p in model.backbone.parameters()}


# ---- all passes -----------------------------------------------------------------------------------------------------


def test_frozen_running_statistics_stay_in_passes_that_plugins_make():
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
