"""FTPPlugin in Avalanche's own strategies, streams and checkpoints."""

import copy
import inspect
import logging
import pickle

import dill
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.benchmarks.utils.data_loader import TaskBalancedDataLoader
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.models import PNN, BaseModel, IncrementalClassifier, SCRModel, SimpleMLP, as_multitask
from avalanche.training import (
    AGEM,
    DER,
    ER_ACE,
    EWC,
    LFL,
    MAS,
    MER,
    MIR,
    SCR,
    CoPE,
    CWRStar,
    FeatureReplay,
    FromScratchTraining,
    GDumb,
    ICaRL,
    JointTraining,
    LwF,
    Naive,
    Replay,
    StreamingLDA,
    SynapticIntelligence,
)
from avalanche.training.supervised.lamaml_v2 import LaMAML
from torch import nn
from torch.utils.data import TensorDataset

from ftp_cl.benchmarks import few_labels
from ftp_cl.models import pretrained
from ftp_cl.optim import FTP
from ftp_cl.plugins import FTPPlugin, find_classifier
from ftp_cl.runs.config import load_config

FEATURES, CLASSES, EXPERIENCES = 12, 6, 3


class Net(BaseModel, nn.Module):
    """A backbone and a head, which grows with the stream unless told otherwise."""

    def __init__(self, growing=True):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(FEATURES, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.head = IncrementalClassifier(8, initial_out_features=2) if growing else nn.Linear(8, CLASSES)

    def get_features(self, x):
        return self.backbone(x)

    def forward(self, x):
        return self.head(self.backbone(x))


def make_data(seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(CLASSES).repeat(12)
    means = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(7))
    inputs = means[targets] + 0.3 * torch.randn(len(targets), FEATURES, generator=generator)
    dataset = TensorDataset(inputs, targets)
    dataset.targets = targets.tolist()
    return as_classification_dataset(dataset)


@pytest.fixture
def benchmark():
    return nc_benchmark(make_data(0), make_data(1), n_experiences=EXPERIENCES, task_labels=False, shuffle=False)


def make_model(seed=0, growing=True):
    torch.manual_seed(seed)
    return Net(growing)


def make_strategy(kind, plugin, model=None, optimizer=torch.optim.AdamW, lr=1e-2, **options):
    model = make_model() if model is None else model
    return kind(
        model=model,
        optimizer=optimizer(model.parameters(), lr=lr),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=12,
        eval_mb_size=36,
        plugins=[plugin] if plugin else [],
        evaluator=None,
        **options,
    )


def assert_within_radius(ftp):
    radii = ftp.radii()
    assert radii, "nothing was projected"
    for name, distance in ftp.distances().items():
        assert distance.max() <= radii[name] * (1 + 1e-4) + 1e-6, name


def fixed():
    return make_model(growing=False)


def features():
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU())


def icarl(model, criterion, **options):
    return ICaRL(feature_extractor=model[0], classifier=model[1], buffer_transform=None, **options)


def scr(criterion, **options):
    return SCR(augmentations=nn.Identity(), **options)


def weights_of(model):
    return {n: p.detach().clone() for n, p in model.backbone.named_parameters(prefix="backbone")}


def assert_anchored(plugin, weights):
    anchors = {n: s["anchor"] for n, s in plugin.ftp.state_dict()["tensors"].items()}
    assert anchors.keys() == weights.keys() and all(torch.equal(anchors[n], weights[n]) for n in weights)


STRATEGIES = {
    "Naive": (Naive, make_model, {}),
    "Replay": (Replay, make_model, {"mem_size": 20}),
    "EWC": (EWC, make_model, {"ewc_lambda": 1.0}),
    "LwF": (LwF, make_model, {"alpha": 1.0, "temperature": 2.0}),
    "SynapticIntelligence": (SynapticIntelligence, make_model, {"si_lambda": 1e-3}),
    "MAS": (MAS, make_model, {}),
    "LFL": (LFL, make_model, {"lambda_e": 0.1}),
    "AGEM": (AGEM, make_model, {"patterns_per_exp": 10, "sample_size": 10}),
    "MIR": (MIR, make_model, {"mem_size": 20, "subsample": 10, "batch_size_mem": 10}),
    "DER": (DER, fixed, {"mem_size": 20}),  # Avalanche's replays logits as wide as they were
    "ER_ACE": (ER_ACE, make_model, {"mem_size": 20}),
    "GDumb": (GDumb, make_model, {"mem_size": 20}),
    "FromScratchTraining": (FromScratchTraining, make_model, {}),
    "MER": (MER, make_model, {"mem_size": 20, "n_inner_steps": 2}),
    "JointTraining": (JointTraining, make_model, {}),
    "CWRStar": (CWRStar, fixed, {"cwr_layer_name": None}),
    "FeatureReplay": (FeatureReplay, fixed, {"last_layer_name": "head", "mem_size": 20}),
    "CoPE": (
        CoPE, lambda: SimpleMLP(num_classes=CLASSES, input_size=FEATURES, hidden_size=16),
        {"mem_size": 20, "p_size": CLASSES, "n_classes": CLASSES},
    ),
    "ICaRL": (
        icarl, lambda: nn.Sequential(features(), nn.Linear(16, CLASSES)), {"memory_size": 12, "fixed_memory": True},
    ),
    "SCR": (
        scr, lambda: SCRModel(feature_extractor=features(), projection=nn.Linear(16, 8)),
        {"mem_size": 20, "batch_size_mem": 12},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_projects_in_every_strategy(benchmark, name):
    kind, model, options = STRATEGIES[name]
    plugin = FTPPlugin()
    strategy = make_strategy(kind, plugin, model=model(), train_epochs=2, **options)
    stream = benchmark.train_stream
    for i, experience in enumerate([stream] if kind is JointTraining else stream):
        strategy.train(experience)
        if i == 0 or kind is not CWRStar:  # which freezes all but the head after the first experience
            assert_within_radius(plugin.ftp)
        assert not any(n.startswith("head") for n in plugin.ftp.radii())
    strategy.eval(benchmark.test_stream)
    assert all(torch.isfinite(p).all() for p in strategy.model.parameters())


def test_leaves_the_heads_of_progressive_networks_free():
    benchmark = nc_benchmark(make_data(0), make_data(1), n_experiences=EXPERIENCES, task_labels=True, shuffle=False)
    plugin = FTPPlugin()
    model = PNN(num_layers=2, in_features=FEATURES, hidden_features_per_column=8)
    strategy = make_strategy(Naive, plugin, model=model)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        assert_within_radius(plugin.ftp)
    assert not any(name.startswith("classifier") for name in plugin.ftp.radii())


def test_does_nothing_without_an_optimizer_and_says_so_once(benchmark, caplog):
    plugin = FTPPlugin()
    strategy = StreamingLDA(
        slda_model=nn.Linear(FEATURES, 8), criterion=nn.CrossEntropyLoss(), input_size=8, num_classes=CLASSES,
        train_mb_size=12, plugins=[plugin], evaluator=None,
    )  # fmt: skip
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert caplog.text.count("no optimizer") == 1 and plugin.summary() == {}


def test_goes_on_after_an_evaluation_that_grew_the_head(benchmark):
    plugin = FTPPlugin()
    strategy = make_strategy(Naive, plugin)
    for experience in benchmark.train_stream:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
        assert_within_radius(plugin.ftp)


def test_follows_the_weights_that_a_loop_in_plain_torch_gives(benchmark):
    experience = benchmark.train_stream[0]
    torch.manual_seed(3)
    strategy = make_strategy(Naive, FTPPlugin(k=0.5), model=make_model(growing=False), train_epochs=3)
    torch.manual_seed(3)
    strategy.train(experience)

    model = make_model(growing=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    FTP(model, k=0.5, exclude="head").attach(optimizer)
    torch.manual_seed(3)
    for _ in range(3):
        for inputs, targets, _ in TaskBalancedDataLoader(experience.dataset.train(), batch_size=12, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    for (name, a), b in zip(strategy.model.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_anchor_previous_is_the_start_of_each_experience(benchmark):
    plugin = FTPPlugin()
    strategy = make_strategy(Naive, plugin, train_epochs=2)
    for experience in benchmark.train_stream:
        start = weights_of(strategy.model)
        strategy.train(experience)
        assert_anchored(plugin, start)


def test_anchor_initial_stays_and_radii_go_on(benchmark):
    plugin = FTPPlugin(anchor="initial")
    strategy = make_strategy(Naive, plugin, train_epochs=2)
    start = weights_of(strategy.model)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert_anchored(plugin, start)
    assert {state["steps"] for state in plugin.ftp.state_dict()["tensors"].values()} == {EXPERIENCES * 2 * 2}


def test_a_plugin_that_serves_a_second_strategy_begins_anew(benchmark):
    plugin = FTPPlugin(anchor="initial")
    make_strategy(Naive, plugin).train(benchmark.train_stream[0])
    second = make_strategy(Naive, plugin)
    start = weights_of(second.model)
    second.train(benchmark.train_stream[0])
    assert_anchored(plugin, start)
    assert {state["steps"] for state in plugin.ftp.state_dict()["tensors"].values()} == {2}


@pytest.mark.parametrize("again", ["strategy of the same model", "copy", "state"])
def test_the_initial_anchor_stays_for_the_same_model_and_what_is_restored(benchmark, again):
    plugin = FTPPlugin(anchor="initial")
    strategy = make_strategy(Naive, plugin)
    start = weights_of(strategy.model)
    strategy.train(benchmark.train_stream[0])
    if again == "strategy of the same model":
        strategy = make_strategy(Naive, plugin, model=strategy.model)
    elif again == "copy":
        plugin = pickle.loads(pickle.dumps(plugin))
        strategy = make_strategy(Naive, plugin, model=copy.deepcopy(strategy.model))
    else:
        strategy = make_strategy(Naive, FTPPlugin(anchor="initial"), model=copy.deepcopy(strategy.model))
        strategy.plugins[0].load_state_dict(plugin.state_dict(), strategy)
        plugin = strategy.plugins[0]
    strategy.train(benchmark.train_stream[1])
    assert_anchored(plugin, start)


@pytest.mark.parametrize("as_file", [False, True])
def test_anchor_from_given_weights(benchmark, tmp_path, as_file):
    weights = make_model(seed=5).state_dict()
    anchor = weights
    if as_file:
        anchor = tmp_path / "anchor.pt"
        torch.save(weights, anchor)
    plugin = FTPPlugin(anchor=anchor)
    make_strategy(Naive, plugin).train(benchmark.train_stream[0])
    tensors = plugin.ftp.state_dict()["tensors"]
    assert torch.equal(tensors["backbone.0.weight"]["anchor"], weights["backbone.0.weight"])


def test_wrong_anchors_are_refused(benchmark):
    with pytest.raises(ValueError, match="neither 'previous' nor 'initial'"):
        FTPPlugin(anchor="previos")
    weights = make_model().state_dict()
    del weights["backbone.3.weight"]
    with pytest.raises(ValueError, match=r"backbone\.3\.weight"):
        make_strategy(Naive, FTPPlugin(anchor=weights)).train(benchmark.train_stream[0])


@pytest.mark.parametrize("boundaries", [True, False])
def test_online_streams_move_the_anchor_only_at_known_boundaries(benchmark, boundaries):
    plugin = FTPPlugin()
    strategy = make_strategy(Naive, plugin, model=make_model(growing=False))
    stream = split_online_stream(
        benchmark.train_stream, experience_size=12, access_task_boundaries=boundaries, drop_last=False
    )
    moved = []
    anchor = None
    for experience in stream:
        strategy.train(experience)
        assert_within_radius(plugin.ftp)
        now = plugin.ftp.state_dict()["tensors"]["backbone.0.weight"]["anchor"].clone()
        moved.append(anchor is None or not torch.equal(anchor, now))
        anchor = now
    assert sum(moved) == (EXPERIENCES if boundaries else 1)


def test_online_stream_without_boundaries_can_move_the_anchor_by_iterations(benchmark):
    plugin = FTPPlugin(reanchor_every=3)
    strategy = make_strategy(Naive, plugin, model=make_model(growing=False))
    anchors = []
    for experience in split_online_stream(benchmark.train_stream, experience_size=12):
        strategy.train(experience)
        anchor = plugin.ftp.state_dict()["tensors"]["backbone.0.weight"]["anchor"].clone()
        if not anchors or not torch.equal(anchors[-1], anchor):
            anchors.append(anchor)
    assert len(anchors) == 2  # six iterations in all


def test_anchors_take_half_the_memory_where_they_may_be_rounded(benchmark):
    plugin = FTPPlugin(method="one_pass", anchor_dtype="bfloat16", round_anchor=True)
    make_strategy(Naive, plugin).train(benchmark.train_stream[0])
    saved = plugin.ftp.state_dict()["tensors"]["backbone.0.weight"]
    assert saved["anchor"].dtype == torch.bfloat16 and saved.get("change") is None
    with pytest.raises(ValueError, match="round_anchor"):
        make_strategy(Naive, FTPPlugin(anchor_dtype="bfloat16")).train(benchmark.train_stream[0])


@pytest.mark.parametrize(("when", "power", "before"), [("step", 1, 0), ("step", 1.5, 5), ("experience", 2, 0)])
def test_the_step_size_follows_a_power_of_the_share_of_the_seen_classes(benchmark, when, power, before):
    radii = {"mu": 6e-3, "scale_by_classes": power, "pretrained_classes": before}
    plugin = FTPPlugin(**radii, when=when, radius_iterations=1)
    strategy = make_strategy(Naive, plugin)
    seen = set()
    for experience in benchmark.train_stream:
        strategy.train(experience)
        here = set(experience.classes_in_this_experience)
        seen |= here
        assert plugin.ftp.mu == pytest.approx(6e-3 * (len(here) / (before + len(seen))) ** power)
        steps = 2 if when == "step" else 1
        largest = max(entry["radius"] for entry in plugin.summary().values())
        assert 0 < largest <= plugin.ftp.mu * steps * 1.01
    assert seen != here


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2), (0, 0, 1)])
def test_seen_classes_are_those_that_were_trained_whatever_their_numbers(benchmark, order):
    plugin = FTPPlugin(mu=6e-3, scale_by_classes=1)
    strategy = make_strategy(Naive, plugin)
    seen = set()
    for number in order:
        strategy.train(benchmark.train_stream[number])
        seen.add(number)  # each has two classes
        assert plugin.ftp.mu == pytest.approx(6e-3 / len(seen))


@pytest.mark.parametrize("source", ["benchmark", "heads"])
def test_class_ids_that_begin_anew_are_other_classes(source):
    options = {"shuffle": False, "class_ids_from_zero_in_each_exp": True}
    benchmark = nc_benchmark(make_data(0), make_data(1), n_experiences=EXPERIENCES, task_labels=True, **options)
    model = make_model(growing=False)
    if source == "heads":
        model = as_multitask(model, "head")
        benchmark = few_labels(benchmark, per_class=6)  # does not tell how classes were numbered
    plugin = FTPPlugin(mu=6e-3, scale_by_classes=1, exclude="head")
    strategy = make_strategy(Naive, plugin, model=model)
    for number, experience in enumerate(benchmark.train_stream):
        assert set(experience.classes_in_this_experience) == {0, 1}
        strategy.train(experience)
        assert plugin.ftp.mu == pytest.approx(6e-3 / (number + 1))


def test_joint_training_speaks_for_all_classes(benchmark):
    plugin = FTPPlugin(mu=6e-3, scale_by_classes=1, pretrained_classes=6)
    make_strategy(JointTraining, plugin).train(benchmark.train_stream)
    assert plugin.ftp.mu == pytest.approx(3e-3)


def test_another_strategy_takes_the_optimizer_over(benchmark, caplog):
    first, second = FTPPlugin(anchor="initial"), FTPPlugin(anchor="initial")
    strategy = make_strategy(Naive, first)
    model, optimizer = strategy.model, strategy.optimizer
    strategy.train(benchmark.train_stream[0])
    start = weights_of(model)
    again = Naive(
        model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), train_mb_size=12, plugins=[second],
        evaluator=None,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        again.train(benchmark.train_stream[1])
    assert caplog.text.count("takes the optimizer over") == 1
    assert second.ftp.is_attached_to(optimizer) and not first.ftp.is_attached_to(optimizer)
    assert_anchored(second, start)
    assert_within_radius(second.ftp)
    with pytest.raises(ValueError, match="Another FTP is attached"):
        FTP(model, exclude="head").attach(optimizer)


def test_two_plugins_in_one_strategy_are_refused(benchmark):
    strategy = make_strategy(Naive, FTPPlugin())
    strategy.plugins.insert(1, FTPPlugin(k=0))
    with pytest.raises(ValueError, match="Two FTPPlugins in one strategy"):
        strategy.train(benchmark.train_stream[0])


def test_projection_at_the_end_of_an_experience_that_comes_in_parts(benchmark):
    plugin = FTPPlugin(when="experience", radius_iterations=4)
    strategy = make_strategy(Naive, plugin, model=make_model(growing=False), train_epochs=2)
    for part in split_online_stream(benchmark.train_stream, 12, access_task_boundaries=True):
        if part.is_first_subexp:
            start, free = strategy.model.backbone[0].weight.detach().clone(), None
        strategy.train(part)
        distance = (strategy.model.backbone[0].weight.detach() - start).abs().sum(1).max()
        if free is None:
            free = distance
    radius = plugin.summary()["backbone.0.weight"]["radius"]
    assert distance <= radius * (1 + 1e-4) + 1e-6 and radius <= 4 * 1e-2 * 1.01
    with pytest.raises(ValueError, match="online stream has none"):
        make_strategy(Naive, FTPPlugin(when="experience"), model=make_model(growing=False)).train(
            next(iter(split_online_stream(benchmark.train_stream, 12)))
        )


def test_what_is_not_trained_is_not_projected_again(benchmark):
    plugin = FTPPlugin(when="experience", radius_iterations=4)
    strategy = make_strategy(Naive, plugin)
    strategy.train(benchmark.train_stream[0])
    before = strategy.model.backbone[0].weight.detach().clone()
    strategy.train_epochs = 0
    strategy.train(benchmark.train_stream[1])
    assert torch.equal(strategy.model.backbone[0].weight, before)


def test_the_step_size_stays_where_experiences_have_all_classes_or_list_none(benchmark):
    plugin = FTPPlugin(mu=6e-3, scale_by_classes=1)
    strategy = make_strategy(Naive, plugin, model=make_model(growing=False))
    for experience in split_online_stream(benchmark.train_stream, experience_size=12):
        strategy.train(experience)
        assert plugin.ftp.mu == 6e-3
    shown = split_online_stream(benchmark.train_stream, experience_size=12, access_task_boundaries=True)
    for experience in shown:
        strategy.train(experience)
    assert plugin.ftp.mu == pytest.approx(6e-3 / EXPERIENCES)


def test_attaches_again_when_the_strategy_replaces_its_optimizer(benchmark):
    plugin = FTPPlugin()
    strategy = make_strategy(Naive, plugin)
    strategy.train(benchmark.train_stream[0])
    strategy.optimizer = torch.optim.SGD(strategy.model.parameters(), lr=0.1)
    strategy.optimized_param_id = None
    strategy.train(benchmark.train_stream[1])
    assert plugin.ftp.is_attached_to(strategy.optimizer)
    assert_within_radius(plugin.ftp)


def test_a_strategy_from_an_avalanche_checkpoint_trains_on_as_if_never_stopped(benchmark, tmp_path):
    def strategy():
        return make_strategy(Naive, FTPPlugin(anchor="initial"), train_epochs=2)

    whole = strategy()
    whole.train(benchmark.train_stream[0])
    dill.settings["byref"] = True  # Avalanche 0.6 cannot save torch's own optimizers otherwise
    try:
        save_checkpoint(whole, tmp_path / "checkpoint.pkl")
    finally:
        dill.settings["byref"] = False
    torch.manual_seed(4)
    whole.train(benchmark.train_stream[1])
    resumed, done = maybe_load_checkpoint(strategy(), tmp_path / "checkpoint.pkl")
    assert done == 1
    torch.manual_seed(4)
    resumed.train(benchmark.train_stream[1])
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert resumed.plugins[0].ftp.radii() == whole.plugins[0].ftp.radii()


@pytest.mark.parametrize("radius_data", ["train", "replay"])
def test_projection_between_experiences(benchmark, radius_data):
    plugin = FTPPlugin(when="experience", radius_data=radius_data, radius_iterations=4)
    strategy = make_strategy(Replay, plugin, mem_size=20, train_epochs=3)
    for experience in benchmark.train_stream:
        start = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}
        strategy.train(experience)
        table = plugin.summary()
        assert table.keys() == {n for n in start if n.startswith("backbone")}
        for name, parameter in strategy.model.named_parameters():
            if name in table:
                change = (parameter - start[name]).detach()
                rows = change.flatten(1) if change.dim() > 1 else change[None]
                assert rows.abs().sum(1).max() <= table[name]["radius"] * (1 + 1e-4) + 1e-6
                assert 0 < table[name]["radius"] <= 4 * 1e-2 * 1.01


def test_projection_between_experiences_says_what_it_lacks(benchmark):
    plugin = FTPPlugin(when="experience", radius_data="validation")
    with pytest.raises(ValueError, match=r"validation.*test, train"):
        make_strategy(Naive, plugin).train(benchmark.train_stream[0])
    with pytest.raises(ValueError, match="ReplayPlugin"):
        make_strategy(Naive, FTPPlugin(when="experience", radius_data="replay")).train(benchmark.train_stream[0])


def test_strategies_that_cannot_be_served_say_so(benchmark, caplog):
    with pytest.raises(TypeError, match="LaMAML"):
        make_strategy(LaMAML, FTPPlugin()).train(benchmark.train_stream[0])
    with caplog.at_level(logging.WARNING):
        make_strategy(FromScratchTraining, FTPPlugin()).train(benchmark.train_stream[0])
    assert "sets the weights back" in caplog.text


class TwoHeads(nn.Module):
    """As distilled transformers have them."""

    def __init__(self):
        super().__init__()
        self.head, self.distilled, self.projection = (nn.Linear(2, 3, bias=False) for _ in range(3))

    def get_classifier(self):
        return self.head, self.distilled


def test_the_classifier_is_found_and_logged(benchmark, caplog):
    with caplog.at_level(logging.INFO):
        make_strategy(Naive, FTPPlugin()).train(benchmark.train_stream[0])
    assert "head.classifier.bias, head.classifier.weight" in caplog.text
    assert find_classifier(SimpleMLP(num_classes=3)) == (
        {"classifier.weight", "classifier.bias"},
        "the last linear layer",
    )
    with pytest.raises(ValueError, match="exclude"):
        find_classifier(nn.Conv2d(1, 1, 1))
    assert find_classifier(TwoHeads()) == ({"head.weight", "distilled.weight"}, "get_classifier()")


@pytest.mark.parametrize("exclude", [nn.LayerNorm, (name for name in ["backbone.1"])], ids=["type", "iterator"])
def test_explicit_exclude_overrides_the_head(benchmark, exclude):
    plugin = FTPPlugin(exclude=exclude)
    make_strategy(Naive, plugin).train(benchmark.train_stream[0])
    assert "head.classifier.weight" in plugin.ftp.radii()
    assert not any(name.startswith("backbone.1.") for name in plugin.ftp.radii())


@pytest.mark.parametrize(
    "options",
    [
        {"k": 2},
        {"mu": 0},
        {"scale_by_classes": -1},
        {"scale_by_classes": float("inf")},
        {"pretrained_classes": -1},
        {"pretrained_classes": float("nan")},
        {"reanchor_every": 1.5},
        {"when": "epoch"},
        {"radius_data": "test"},
        {"radius_iterations": 0},
        {"reanchor_every": 0},
        {"method": "new"},
        {"backend": "fortran"},
        {"direction_dtype": "bfloat61"},
        {"anchor_dtype": "int8"},
    ],
)
def test_wrong_arguments_are_refused_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FTPPlugin(**options)


def test_the_published_values_are_the_default_everywhere():
    published = {"k": 1, "mu": 1e-2, "scale_by_classes": 0, "pretrained_classes": 0}
    plugin_defaults = inspect.signature(FTPPlugin).parameters
    for method in ("ftp", "ftp_lda_ensemble", "ftp_replay", "fixmatch_ftp"):
        keys = load_config([f"method={method}"]).method
        for name, value in published.items():
            assert keys[name] == plugin_defaults[name].default == value
    assert {name: inspect.signature(FTP).parameters[name].default for name in ("k", "mu")} == {"k": 1, "mu": 1e-2}


@pytest.mark.parametrize("options", [{"exclude": None}, {"exclude": [3]}, {"anchor": None}, {"anchor": 3}])
def test_arguments_of_another_kind_are_refused_at_once(options):
    with pytest.raises(TypeError, match=next(iter(options))):
        FTPPlugin(**options)


def test_on_a_transformer_everything_but_the_classifier_is_projected_as_in_the_published_code():
    def experience():
        data = TensorDataset(torch.rand(8, 3, 32, 32), torch.arange(8) % 2)
        data.targets = [i % 2 for i in range(8)]
        data = as_classification_dataset(data)
        return nc_benchmark(data, data, n_experiences=1, task_labels=False, shuffle=False).train_stream[0]

    model = pretrained("vit_tiny_patch16_224", weights="random", img_size=32, depth=1, init_values=1e-5)
    plugin = FTPPlugin()
    make_strategy(Naive, plugin, model).train(experience())
    expected = {f"backbone.{name}" for name in dict(model.backbone.named_parameters())}
    assert set(plugin.ftp.projected_names()) == expected
    assert {f"backbone.{name}" for name in ("pos_embed", "cls_token", "norm.bias", "blocks.0.ls1.gamma")} <= expected
    assert plugin.ftp.distances()["backbone.pos_embed"].numel() == 1  # one row, of all positions
