"""The plugins in Avalanche's strategies: pairing, options, evaluation, combination, checkpoints, bad input."""

import copy
import pickle
import warnings
from multiprocessing import active_children

import dill
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, split_online_stream, with_classes_timeline
from avalanche.benchmarks.scenarios import EagerCLStream
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import as_multitask
from avalanche.training import Cumulative, Naive
from avalanche.training.plugins import EarlyStoppingPlugin, EvaluationPlugin, LwFPlugin, ReplayPlugin
from torch import nn

from ftp_cl.benchmarks import few_labels, hidden_labels, split_digits
from ftp_cl.models import small_cnn
from ftp_cl.plugins import FTPPlugin, JointTraining, SeparatedSoftmax
from ftp_cl.plugins.semi_supervised import (
    FixMatch,
    FlexMatch,
    FreeMatch,
    MeanTeacher,
    PseudoLabel,
    SemiSupervisedPlugin,
    StrongView,
    UnlabelledLoss,
    WeakView,
)
from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatches

WEAK = WeakView(flip=False, crop=0)  # a shift of one pixel is much in images of eight
STRONG = StrongView(WEAK, magnitude=5)
METHODS = {
    "pseudo_label": lambda **o: PseudoLabel(view=WEAK, **o),
    "mean_teacher": lambda **o: MeanTeacher(view=WEAK, **o),
    "fixmatch": lambda **o: FixMatch(weak=WEAK, strong=STRONG, **o),
    "flexmatch": lambda **o: FlexMatch(weak=WEAK, strong=STRONG, **o),
    "freematch": lambda **o: FreeMatch(weak=WEAK, strong=STRONG, momentum=0.9, **o),
}


@pytest.fixture(scope="module")
def whole():
    return split_digits(n_experiences=2)


@pytest.fixture(scope="module")
def benchmark(whole):
    return few_labels(whole, per_class=8)


def make_strategy(*plugins, lr=0.01, epochs=2, model=None):
    torch.manual_seed(0)
    model = model or small_cnn()
    return Naive(
        model=model, optimizer=torch.optim.Adam(model.parameters(), lr), criterion=nn.CrossEntropyLoss(),
        train_mb_size=8, train_epochs=epochs, eval_mb_size=256, plugins=list(plugins), evaluator=None,
    )  # fmt: skip


class Probe(SemiSupervisedPlugin):
    """Keeps the batches that it is given."""

    def __init__(self, **options):
        super().__init__([lambda image: image, WEAK], **{"ratio": 2, "weight": 1.0, **options})
        self.batches, self.progress = [], []

    def ramp(self, progress):
        self.progress.append(progress)
        return 1.0

    def unlabelled_loss(self, strategy, batch):
        self.batches.append(batch)
        logits = self.logits(strategy, strategy.model, batch.views[0], batch)
        labels = logits.argmax(1)
        return UnlabelledLoss(0 * logits.sum(), labels, labels >= 0)


class Noise:
    def __call__(self, image):
        return image + torch.rand(1)


class Rejecting:
    def __call__(self, image):
        if image == 0.5:
            raise ValueError("wrong")
        return image


def accuracy(strategy, stream):
    model, right, total = strategy.model.eval(), 0, 0
    with torch.no_grad():
        for experience in stream:
            images = torch.stack([item[0] for item in experience.dataset])
            targets = torch.tensor([item[1] for item in experience.dataset])
            right += (model(images).argmax(1) == targets).sum().item()
            total += len(targets)
    return right / total


# ---- pairing -------------------------------------------------------------------------------------------------------


def test_each_iteration_gets_a_batch_of_the_unlabelled_experience(benchmark):
    probe = Probe()
    strategy = make_strategy(probe)
    for experience, unlabelled in zip(benchmark.train_stream, benchmark.streams["unlabelled"], strict=True):
        probe.batches.clear()
        strategy.train(experience)
        images = torch.stack([item[0] for item in unlabelled.dataset])
        assert len(probe.batches) == 2 * 5, "40 labelled images, 8 in a batch, 2 epochs"
        for batch in probe.batches:
            assert len(batch.indices) == 16 and len(set(batch.indices.tolist())) == 16
            assert torch.equal(batch.views[0], images[batch.indices]) and batch.views[1].shape == batch.views[0].shape
    assert probe._batches is None, "the iterator is dropped"
    assert probe.progress[:10] == pytest.approx([i / 10 for i in range(10)])


def test_workers_make_the_same_views_whatever_their_number_and_end_with_the_experience(benchmark):
    probes = Probe(ratio=20), Probe(ratio=20)  # 160 of 450 images: a pass has two batches
    images = torch.stack([item[0] for item in benchmark.streams["unlabelled"][0].dataset])
    before = set(active_children())
    for workers, probe in enumerate(probes, 1):
        probe.views = (*probe.views[:1], WeakView(crop=0.25))
        make_strategy(probe, epochs=1).train(benchmark.train_stream[0], num_workers=workers)
        assert set(active_children()) <= before
    for one, two in zip(*(probe.batches for probe in probes), strict=True):
        assert torch.equal(one.views[0], images[one.indices]) and torch.equal(one.indices, two.indices)
        assert torch.equal(one.views[1], two.views[1]) and not torch.equal(one.views[0], one.views[1])
    assert len(probes[0].batches) == 5


def test_batches_by_workers_go_on_from_their_place():
    items = [(torch.tensor([float(number)]), 0, number % 2) for number in range(20)]
    batches = UnlabelledBatches(items, [Noise()], 6, workers=2)
    whole = [next(batches)]
    copied = pickle.loads(pickle.dumps(batches))
    other = UnlabelledBatches(items, [Noise()], 6, workers=1)
    other.place = batches.place
    state = torch.get_rng_state()
    whole += [next(batches) for _ in range(6)]
    for following in (other, copied):
        for expected in whole[1:]:
            batch = next(following)
            assert torch.equal(batch.views[0], expected.views[0]) and torch.equal(batch.indices, expected.indices)
            assert torch.equal(batch.views[0].floor().flatten().long(), batch.indices)
            assert torch.equal(batch.task_labels, batch.indices % 2)
    assert torch.equal(torch.get_rng_state(), state), "after the first batch, this process draws no number"
    passes = [torch.cat([batch.indices for batch in whole[start : start + 3]]).tolist() for start in (0, 3)]
    assert passes[0] != passes[1] and all(len(set(of_pass)) == 18 for of_pass in passes)
    assert len({float(image) for batch in whole for image in batch.views[0] % 1}) > 40


def test_a_wrong_image_leaves_the_batches_in_their_place():
    items = [(torch.tensor([number / 10]), 0) for number in range(10)]
    batches = UnlabelledBatches(items, [Rejecting()], 3, workers=1)
    with pytest.raises(ValueError, match=r"^wrong\s*$"):
        [next(batches) for _ in range(4)]
    place = batches.place
    with pytest.raises(ValueError, match=r"^wrong\s*$"):
        next(batches)
    assert batches.place == place


def test_joint_training_takes_all_unlabelled_images(benchmark):
    probe = Probe(record=True)
    strategy = make_strategy(JointTraining(), probe, epochs=2)
    for number in (1, 0):
        strategy.train(benchmark.train_stream[number])
    images = torch.stack([item[0] for experience in benchmark.streams["unlabelled"] for item in experience.dataset])
    assert len(probe.batches) == 2 * 10, "80 labelled images, 8 in a batch, 2 epochs"
    for batch in probe.batches:
        assert torch.equal(batch.views[0], images[batch.indices])
    assert probe._candidates == list(range(10)) and probe.numbers == [0, 1]


def test_the_ratio_is_to_the_labelled_images_that_there_are(whole):
    few = few_labels(whole, per_class=1)  # five labelled images in an experience, in batches of at most eight
    probe = Probe(ratio=3)
    make_strategy(probe, epochs=1).train(few.train_stream[0])
    assert [len(batch.indices) for batch in probe.batches] == [15]
    cumulative = Probe(ratio=3)
    model = small_cnn()
    strategy = Cumulative(
        model=model, optimizer=torch.optim.Adam(model.parameters()), criterion=nn.CrossEntropyLoss(), train_mb_size=16,
        plugins=[cumulative], evaluator=None,
    )  # fmt: skip
    for experience in few.train_stream:
        strategy.train(experience)
    assert [len(batch.indices) for batch in cumulative.batches] == [15, 30]


@pytest.mark.parametrize("probe_first", [True, False])
def test_ramps_end_with_the_experience_whatever_replay_makes_of_the_loader(benchmark, probe_first):
    probe, replay = Probe(), ReplayPlugin(mem_size=100, batch_size=4, batch_size_mem=4)
    strategy = make_strategy(*([probe, replay] if probe_first else [replay, probe]), epochs=1)
    for experience in benchmark.train_stream:
        probe.progress.clear()
        strategy.train(experience)
    iterations = len(probe.progress)
    assert iterations > 5, "40 labelled images, 4 of them in a batch"
    assert probe.progress == pytest.approx([i / iterations for i in range(iterations)])


def test_batches_go_through_all_unlabelled_images_again_and_again(benchmark):
    probe = Probe(ratio=20)  # 160 of 450 images
    make_strategy(probe, epochs=1).train(benchmark.train_stream[0])
    sets = [set(batch.indices.tolist()) for batch in probe.batches]
    assert sets[0].isdisjoint(sets[1]) and sets[2] != sets[0]


def test_more_images_asked_for_than_there_are_gives_all_of_them(benchmark):
    probe = Probe(ratio=1000)
    make_strategy(probe, epochs=1).train(benchmark.train_stream[0])
    n = len(benchmark.streams["unlabelled"][0].dataset)
    assert [len(batch.indices) for batch in probe.batches] == [n] * 5


@pytest.mark.parametrize(("classes", "widths"), [("experience", [5, 5]), ("seen", [5, 10])])
def test_pseudo_labels_are_of_the_experience_or_of_all_seen(benchmark, classes, widths):
    probe = Probe(classes=classes, record=True)
    strategy = make_strategy(probe, epochs=1)
    allowed = set()
    for experience, width in zip(benchmark.train_stream, widths, strict=True):
        strategy.train(experience)
        allowed = set(experience.classes_in_this_experience) | (allowed if classes == "seen" else set())
        assert probe._candidates == sorted(allowed) and len(allowed) == width
        (taken,) = probe.take_pseudo_labels()
        assert set(taken.labels.tolist()) <= allowed and len(taken.labels) == 5 * 16
    assert probe.take_pseudo_labels() == []


def test_logits_of_classes_that_a_label_may_not_be_get_no_gradient(benchmark):
    plugin = FixMatch(0.0, weak=WEAK, strong=STRONG, ratio=1, ema_decay=None)
    strategy = make_strategy(SeparatedSoftmax(), plugin, model=small_cnn(head="linear"))
    strategy.train(benchmark.train_stream[0])
    old = sorted(benchmark.train_stream[0].classes_in_this_experience)
    before = strategy.model.head.classifier.weight[old].clone()
    strategy.optimizer.state.clear()
    strategy.train(benchmark.train_stream[1])
    assert torch.equal(strategy.model.head.classifier.weight[old], before)


# ---- methods -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(benchmark):
    """A model that the labelled images alone have taught something."""
    strategy = make_strategy(SeparatedSoftmax(), epochs=4)
    strategy.train(benchmark.train_stream[0])
    return strategy.model


@pytest.mark.parametrize("method", sorted(METHODS))
def test_most_images_are_taken_for_what_they_are(benchmark, whole, trained, method):
    plugin = METHODS[method](ratio=3, record=True)
    strategy = make_strategy(SeparatedSoftmax(), plugin, epochs=4, model=copy.deepcopy(trained), lr=0.003)
    strategy.train(benchmark.train_stream[0])
    taken = plugin.take_pseudo_labels()
    assert len(taken) == 4
    truth = torch.tensor(hidden_labels(whole, per_class=8)[0])
    right = (taken[-1].labels == truth[taken[-1].indices])[taken[-1].used].double().mean()
    assert right > 0.8, "five classes: chance is 20 %"
    assert accuracy(strategy, [benchmark.streams["test"][0]]) > 0.85


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("other", ["replay", "lwf", "ftp"])
def test_methods_combine_with_replay_lwf_and_ftp(benchmark, method, other):
    others = {"replay": ReplayPlugin(10), "lwf": LwFPlugin(1.0, 2.0), "ftp": FTPPlugin()}
    strategy = make_strategy(METHODS[method](ratio=1), others[other], epochs=1)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert strategy.clock.train_iterations == 10
    assert all(weight.isfinite().all() for weight in strategy.model.parameters())


def test_the_loss_is_added_with_its_weight(benchmark):
    class Watch(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            self.before = strategy.loss.item()

        def after_backward(self, strategy, **kwargs):
            self.after = strategy.loss.item()

    class One(Probe):
        def unlabelled_loss(self, strategy, batch):
            found = super().unlabelled_loss(strategy, batch)
            return UnlabelledLoss(found.loss + 1, found.labels, found.used)

    watch = Watch()
    make_strategy(watch, One(weight=2.5)).train(benchmark.train_stream[0])
    assert watch.after == pytest.approx(watch.before + 2.5)


# ---- averaged weights ----------------------------------------------------------------------------------------------


class Follow(SupervisedPlugin):
    """Averages the weights after each step as `WeightAverage` should, and evaluates in the middle."""

    def __init__(self, stream):
        super().__init__()
        self.stream, self.mean, self.count = stream, None, 0

    def after_update(self, strategy, **kwargs):
        weights = torch.cat([w.detach().flatten() for w in strategy.model.parameters()])
        self.count += 1
        self.mean = weights if self.mean is None else self.mean + (weights - self.mean) / self.count
        if self.count == 4:
            self.evaluated = None
            strategy.eval(self.stream)
            assert torch.equal(weights, torch.cat([w.detach().flatten() for w in strategy.model.parameters()]))

    def before_eval_forward(self, strategy, **kwargs):
        if self.count == 4:
            self.evaluated = torch.cat([w.detach().flatten() for w in strategy.model.parameters()])
            self.expected = self.mean


def test_the_average_is_evaluated_and_adopted_at_the_end(benchmark):
    follow = Follow([benchmark.streams["test"][0]])
    strategy = make_strategy(FixMatch(weak=WEAK, strong=STRONG, ratio=1), follow, epochs=1)
    strategy.train(benchmark.train_stream[0])
    assert follow.count == 5
    torch.testing.assert_close(follow.evaluated, follow.expected)
    torch.testing.assert_close(torch.cat([w.detach().flatten() for w in strategy.model.parameters()]), follow.mean)


@pytest.mark.parametrize("method", ["fixmatch", "mean_teacher"])
@pytest.mark.parametrize("early_stopping_first", [True, False])
def test_early_stopping_leaves_the_weights_that_were_evaluated_as_best(benchmark, method, early_stopping_first):
    evaluated = []

    class Vectors(SupervisedPlugin):
        def before_eval(self, strategy, **kwargs):
            evaluated.append(nn.utils.parameters_to_vector(strategy.model.parameters()).detach().clone())
            accuracies.append(accuracy(strategy, [benchmark.streams["test"][0]]))

    accuracies = []
    stopping, vectors = EarlyStoppingPlugin(2, "test_stream"), Vectors()
    plugin = METHODS[method](ratio=1, ema_decay=0.5)
    plugins = [stopping, plugin, vectors] if early_stopping_first else [plugin, stopping, vectors]
    torch.manual_seed(0)
    model = small_cnn()
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), 1.0), criterion=nn.CrossEntropyLoss(),
        train_mb_size=8, train_epochs=8, eval_mb_size=512, plugins=plugins, eval_every=1,
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True)),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Avalanche's, of the first epoch
        strategy.train(benchmark.train_stream[0], eval_streams=[[benchmark.streams["test"][0]]])
    # The first evaluation is before training; what early stopping compares comes after each epoch; the last is final.
    epochs = strategy.clock.train_exp_epochs
    assert 2 < epochs < 8, "it has stopped"
    best = 1 + max(range(epochs), key=lambda i: accuracies[1 + i])
    final = nn.utils.parameters_to_vector(model.parameters())
    assert torch.equal(final, evaluated[best])


def test_early_stopping_within_an_epoch_is_refused_where_averages_are_evaluated(benchmark):
    stopping = EarlyStoppingPlugin(2, "test_stream", peval_mode="iteration")
    with pytest.raises(ValueError, match=r"FixMatch evaluates averaged weights.*peval_mode='epoch'"):
        make_strategy(METHODS["fixmatch"](), stopping).train(benchmark.train_stream[0])
    make_strategy(METHODS["fixmatch"](ema_decay=None), stopping, epochs=1).train(benchmark.train_stream[0])


class Interrupt(SupervisedPlugin):
    """Ctrl-C in the middle of an experience."""

    def after_training_iteration(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["fixmatch", "mean_teacher"])
def test_a_plugin_whose_training_was_interrupted_begins_anew(benchmark, method):
    def trained(plugin):
        strategy = make_strategy(plugin, epochs=1)
        strategy.train(benchmark.train_stream[0])
        return nn.utils.parameters_to_vector(strategy.model.parameters())

    plugin = METHODS[method](classes="seen")
    strategy = make_strategy(plugin, Interrupt(), lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        strategy.train(benchmark.train_stream[1])
    torch.manual_seed(0)
    again = trained(plugin)  # another strategy, whose first experience has other classes
    torch.manual_seed(0)
    assert torch.equal(again, trained(METHODS[method](classes="seen")))


def test_a_teacher_of_a_multi_task_model_is_one():
    few = few_labels(split_digits(n_experiences=2, return_task_id=True), per_class=8)
    size = few.train_stream[0].dataset[0][0].numel()
    model = as_multitask(nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.ReLU(), nn.Linear(16, 10)), "3")
    strategy = make_strategy(METHODS["mean_teacher"](), epochs=1, model=model)
    for experience in few.train_stream:
        strategy.train(experience)


# ---- state ---------------------------------------------------------------------------------------------------------


def resumable_state(plugin):
    """What the plugin's next batch and loss depend on, as lists to compare."""
    return torch.utils._pytree.tree_map(
        lambda value: value.tolist() if isinstance(value, torch.Tensor) else value, plugin.state_dict()
    )


class At(SupervisedPlugin):
    """Calls a function after the third iteration of an experience."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def after_training_iteration(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations == 2:
            self.action(strategy)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_plugins_survive_pickling_copying_and_their_own_state_within_an_experience(benchmark, method):
    plugin, others = METHODS[method](ratio=1, record=True), []

    def take(strategy):
        restored = METHODS[method](ratio=1, record=True)
        restored.before_training_exp(strategy)
        restored.load_state_dict(copy.deepcopy(plugin.state_dict()), strategy)
        others.extend([pickle.loads(pickle.dumps(plugin)), copy.deepcopy(plugin), restored])
        for other in others:
            assert resumable_state(other) == resumable_state(plugin)
        torch.manual_seed(3)
        batch = next(copy.deepcopy(plugin)._batches)
        for other in others:
            torch.manual_seed(3)
            assert torch.equal(next(other._batches).views[0], batch.views[0])

    make_strategy(plugin, At(take), epochs=1).train(benchmark.train_stream[0])
    assert len(others) == 3


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_strategy_from_a_checkpoint_trains_on_as_if_never_stopped(benchmark, method, tmp_path, monkeypatch):
    monkeypatch.setitem(dill.settings, "byref", True)
    strategy = make_strategy(METHODS[method](ratio=1, classes="seen"), epochs=1)
    strategy.train(benchmark.train_stream[0])
    save_checkpoint(strategy, tmp_path / "checkpoint.pkl")
    again, number = maybe_load_checkpoint(make_strategy(), tmp_path / "checkpoint.pkl")
    assert number == 1
    for candidate in (strategy, again):
        torch.manual_seed(5)
        candidate.train(benchmark.train_stream[1])
    for weight, other in zip(strategy.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(weight, other)


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: FixMatch(ratio=0), "ratio=0 leaves no unlabelled image"),
        (lambda: FixMatch(ratio=float("inf")), "ratio=inf is no number"),
        (lambda: FixMatch(weight=-1), "weight=-1"),
        (lambda: FixMatch(1.5), "threshold=1.5"),
        (lambda: FixMatch(ema_decay=1), "ema_decay=1"),
        (lambda: FixMatch(classes="all"), "'all' is unknown"),
        (lambda: FreeMatch(momentum=1), "momentum=1"),
        (lambda: FreeMatch(fairness=-0.1), "fairness=-0.1"),
        (lambda: FreeMatch(threshold=0.9), "leave threshold out"),
        (lambda: MeanTeacher(ema_decay=None), "ema_decay=None leaves no teacher"),
        (lambda: PseudoLabel(ramp=(0.5, 0.5)), "ramp"),
        (lambda: MeanTeacher(ramp=0), "ramp=0"),
    ],
)
def test_options_out_of_range_are_refused_in_one_sentence(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_a_benchmark_without_unlabelled_images_is_refused(whole):
    with pytest.raises(ValueError, match="no stream 'unlabelled'"):
        make_strategy(FixMatch()).train(whole.train_stream[0])


def test_an_experience_that_does_not_know_its_benchmark_is_told_what_to_pass(benchmark):
    streams = {name: [e.dataset for e in benchmark.streams[name]] for name in ("train", "test", "unlabelled")}
    unknown = with_classes_timeline(benchmark_from_datasets(**streams))
    with pytest.raises(ValueError, match=r"pass unlabelled=benchmark\.streams\['unlabelled'\]"):
        make_strategy(METHODS["fixmatch"]()).train(unknown.train_stream[0])
    given = METHODS["fixmatch"](unlabelled=unknown.streams["unlabelled"])
    make_strategy(given, epochs=1).train(unknown.train_stream[0])


def test_an_unlabelled_stream_of_another_size_or_empty_is_refused(benchmark):
    short = EagerCLStream("unlabelled", [benchmark.streams["unlabelled"][0]], set_stream_info=False)
    with pytest.raises(ValueError, match="has 1 experiences and the training stream 2"):
        make_strategy(FixMatch(unlabelled=short)).train(benchmark.train_stream[0])
    empty = copy.copy(benchmark.streams["unlabelled"][0])
    empty._dataset = empty.dataset.subset([])
    stream = EagerCLStream("unlabelled", [empty, empty], set_stream_info=False)
    with pytest.raises(ValueError, match="Experience 0 of the unlabelled stream is empty"):
        make_strategy(FixMatch(unlabelled=stream)).train(benchmark.train_stream[0])


@pytest.mark.parametrize("boundaries", [True, False])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_online_streams_are_refused_in_one_sentence(benchmark, method, boundaries):
    stream = split_online_stream(benchmark.train_stream, experience_size=8, access_task_boundaries=boundaries)
    stream = with_classes_timeline(stream)
    plugin = METHODS[method](unlabelled=benchmark.streams["unlabelled"])
    with pytest.raises(ValueError, match="needs whole experiences, and an online stream gives pieces") as error:
        make_strategy(plugin, model=small_cnn(head="linear")).train(next(iter(stream)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_are_no_tensors_are_refused(workers):
    from ftp_cl.benchmarks import split_emoji

    few = few_labels(split_emoji(size=8, ood_domains=(), eval_transform=None), per_class=2)
    strategy = make_strategy(FixMatch(), model=small_cnn(3, head="linear"))
    with pytest.raises(TypeError, match=r"^Views are made of tensors, and the unlabelled stream gives Image"):
        strategy.train(few.train_stream[0], num_workers=workers)
