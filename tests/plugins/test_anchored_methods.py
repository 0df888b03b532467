"""Penalties, SPD, fixed radii, DiGraP, TPGM, WiSE-FT around an anchor: against numbers by hand or independent loops."""

import copy

import pytest
import torch
from avalanche.benchmarks import (
    split_online_stream,
)
from torch.nn.functional import cross_entropy

from ftp_cl.optim import AdamSPD, AnchoredSteps, DirectionalProjection
from ftp_cl.plugins import (
    AnchorPenalty,
    DiGraPPlugin,
    FixedRadiusPlugin,
    FTPPlugin,
    HeadFirst,
    SPDPlugin,
    TPGMPlugin,
    WiSEFT,
)

# ---- penalties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ["previous", "initial"])
@pytest.mark.parametrize("penalty", ["l2_sp", "mars_sp"])
def test_penalised_training_equals_a_loop_by_hand(
    benchmark, penalty, anchor, body_and_head, make_strategy, whole_batch
):
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


def test_a_fixed_radius_holds_in_every_experience(benchmark, body_and_head, make_strategy):
    model = body_and_head()
    strategy = make_strategy(model, FixedRadiusPlugin(0.05))
    for experience in benchmark.train_stream:
        before, head = model[0].weight.detach().clone(), model[2].weight.detach().clone()
        strategy.train(experience)
        distances = (model[0].weight - before).abs().sum(1)
        assert distances.max() <= 0.05 + 1e-6 and distances.max() > 0.049
        assert (model[2].weight - head).abs().sum() > 0.1, "the head is free"
    assert not strategy.optimizer._optimizer_step_post_hooks


def test_spd_plugin_with_adam_is_adam_spd(benchmark, body_and_head, make_strategy, whole_batch):
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


def test_digrap_plugin_is_its_rule_around_each_experience(benchmark, body_and_head, make_strategy, whole_batch):
    model = body_and_head()
    literal = copy.deepcopy(model)
    plugin = DiGraPPlugin(0.3)
    strategy = make_strategy(model, plugin, optimizer=torch.optim.SGD(model.parameters(), lr=3.0), epochs=8)
    optimizer = torch.optim.SGD(literal.parameters(), lr=3.0)  # which overshoots
    for experience in benchmark.train_stream:
        strategy.train(experience)
        rule = DirectionalProjection(0.3)
        steps = AnchoredSteps(rule, {p: p.detach() for p in literal[0].parameters()}).attach(optimizer)
        inputs, targets = whole_batch(experience)
        for _ in range(8):
            optimizer.zero_grad()
            cross_entropy(literal(inputs), targets).backward()
            optimizer.step()
        steps.detach()
        expected = [rule.strengths[p].numbers[0].item() for p in literal[0].parameters()]
        assert plugin.strengths() == pytest.approx(dict(zip(["0.weight", "0.bias"], expected, strict=True)), rel=1e-3)
        assert 0.05 < max(expected) <= 1.0, "it projects"
    for ours, theirs in zip(model.parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)  # the order of a batch sums otherwise


@pytest.mark.parametrize(("anchor", "steps"), [("initial", 6), ("previous", 3)])
def test_strengths_of_digrap_stay_as_long_as_the_anchor_does(benchmark, anchor, steps, body_and_head, make_strategy):
    plugin = DiGraPPlugin(anchor=anchor)
    strategy = make_strategy(body_and_head(), plugin, epochs=3)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert {int(strength.numbers[3]) for strength in plugin.rule.strengths.values()} == {steps}


def test_a_state_of_digrap_has_the_strengths_of_frozen_tensors_and_shares_nothing(
    benchmark, body_and_head, make_strategy, watch
):
    plugin, model = DiGraPPlugin(0.3, anchor="initial"), body_and_head()
    states = watch(lambda strategy: copy.deepcopy(plugin.state_dict()["strengths"]))
    strategy = make_strategy(model, HeadFirst(0.5), plugin, states, epochs=4)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert [sorted(state) for state in states.seen[3:6]] == [["0.bias", "0.weight"]] * 3, "frozen in two of them"
    saved = plugin.state_dict()
    again = DiGraPPlugin(0.3, anchor="initial")
    again.load_state_dict(saved, strategy)
    assert again.strengths() == plugin.strengths()
    for strength in again.rule.strengths.values():
        strength.numbers.fill_(7.0)
    assert all(numbers[0] <= 1.0 for numbers, _ in saved["strengths"].values())


def test_digrap_lets_go_of_tensors_that_were_replaced(benchmark, vector_classifier, make_strategy):
    plugin = DiGraPPlugin(anchor="initial", exclude=())
    strategy = make_strategy(vector_classifier(), plugin, epochs=2)
    for experience in benchmark.train_stream:  # the head grows
        strategy.train(experience)
    assert len(plugin.rule.strengths) == len(list(strategy.model.parameters()))


# ---- TPGM and WiSE-FT -----------------------------------------------------------------------------------------------


def test_tpgm_does_not_train_on_what_it_holds_out(benchmark, body_and_head, make_strategy, watch):
    seen = watch(lambda strategy: strategy.mb_x.clone())
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
def test_tpgm_leaves_rows_within_its_radii(benchmark, when, body_and_head, make_strategy):
    model = body_and_head()
    plugin = TPGMPlugin(when, iterations=1 if when == "step" else 20)
    strategy = make_strategy(model, plugin)
    for experience in benchmark.train_stream:
        before = model[0].weight.detach().clone()
        strategy.train(experience)
        distances = (model[0].weight.detach() - before).abs().sum(1)
        assert 0 < distances.max() <= plugin.tpgm.radii[0] * (1 + 1e-5)
    assert plugin.tpgm.names == ["0.weight", "0.bias"]


def test_tpgm_learns_as_often_as_proj_freq_says(benchmark, body_and_head, make_strategy):
    plugin = TPGMPlugin(proj_freq=3)
    make_strategy(body_and_head(), plugin, epochs=7).train(benchmark.train_stream[0])
    assert plugin._drawn == 3, "in iterations 0, 3 and 6"


@pytest.mark.parametrize(("anchor", "stays"), [("initial", True), ("previous", False)])
def test_the_radii_of_tpgm_stay_as_long_as_the_anchor_does(benchmark, anchor, stays, body_and_head, make_strategy):
    plugin = TPGMPlugin(anchor=anchor)
    strategy = make_strategy(body_and_head(), plugin, epochs=3)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert plugin.tpgm.state_dict()["adam"]["state"][0]["step"] == (6 if stays else 3)


@pytest.mark.parametrize("plugin", [WiSEFT(), TPGMPlugin("experience")])
def test_what_acts_at_the_end_of_an_experience_refuses_online_streams(benchmark, plugin, body_and_head, make_strategy):
    strategy = make_strategy(body_and_head(), plugin, epochs=1)
    with pytest.raises(ValueError, match="online stream has none"):
        strategy.train(next(iter(split_online_stream(benchmark.train_stream, experience_size=12))))


def test_wise_ft_leaves_an_experience_without_training_alone(benchmark, body_and_head, make_strategy):
    model = body_and_head()
    strategy = make_strategy(model, WiSEFT(0.5, anchor="initial"))
    strategy.train(benchmark.train_stream[0])
    before = model[0].weight.detach().clone()
    strategy.train_epochs = 0
    strategy.train(benchmark.train_stream[1])
    assert torch.equal(model[0].weight, before)


def test_an_anchor_of_another_model_is_refused_and_wrapped_names_are_known(benchmark, body_and_head, make_strategy):
    start = body_and_head()
    given = {f"module.{name}": value.clone() for name, value in start.state_dict().items()}
    plugin = WiSEFT(0.0, anchor=given)
    model = body_and_head()
    make_strategy(model, plugin).train(benchmark.train_stream[0])
    assert torch.equal(model[0].weight, start[0].weight)
    with pytest.raises(ValueError, match=r"None of the anchor's tensors \(other.*0\.weight"):
        make_strategy(body_and_head(), WiSEFT(anchor={"other": torch.ones(2)})).train(benchmark.train_stream[0])


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_wise_ft_interpolates_the_body_and_keeps_the_head(benchmark, alpha, body_and_head, make_strategy):
    model, plain = body_and_head(), body_and_head()
    start = model[0].weight.detach().clone()
    for each, plugins in ((model, [WiSEFT(alpha)]), (plain, [])):
        make_strategy(each, *plugins).train(benchmark.train_stream[0])
    torch.testing.assert_close(model[0].weight.detach(), (1 - alpha) * start + alpha * plain[0].weight.detach())
    torch.testing.assert_close(model[2].weight, plain[2].weight)


# ---- what is thawed later, and streams in parts ---------------------------------------------------------------------


@pytest.mark.parametrize("head_first_first", [True, False])
@pytest.mark.parametrize("anchor", ["previous", "initial"])
def test_what_is_frozen_at_first_is_anchored_when_it_is_thawed(
    benchmark, body_and_head, make_strategy, head_first_first, anchor
):
    for plugin, bound in ((FixedRadiusPlugin(0.01, anchor=anchor), 0.01), (WiSEFT(0.0, anchor=anchor), 0.0)):
        model = body_and_head()
        plugins = [HeadFirst(0.4), plugin] if head_first_first else [plugin, HeadFirst(0.4)]
        strategy = make_strategy(model, *plugins, epochs=5)
        start = model[0].weight.detach().clone()
        for experience in benchmark.train_stream:
            strategy.train(experience)
            assert (model[0].weight - start).abs().sum(1).max() <= bound + 1e-6
            start = start if anchor == "initial" else model[0].weight.detach().clone()
        assert plugin.weights.keys() == {"0.weight", "0.bias"}


def test_penalties_see_what_was_thawed_and_the_head_stays_free(benchmark, body_and_head, make_strategy, whole_batch):
    model, experience = body_and_head(), benchmark.train_stream[0]
    literal = copy.deepcopy(model)
    make_strategy(model, HeadFirst(0.4), AnchorPenalty(alpha=0.3, beta=0.2), epochs=5).train(experience)
    start = [parameter.detach().clone() for parameter in literal[0].parameters()]
    inputs, targets = whole_batch(experience)
    for epoch in range(5):
        body = [] if epoch < 2 else list(literal[0].parameters())
        loss = cross_entropy(literal(inputs), targets)
        loss += 0.3 * sum(((weight - before) ** 2).sum() / 2 for weight, before in zip(body, start, strict=False))
        loss += 0.2 * sum((weight**2).sum() / 2 for weight in literal[2].parameters())
        weights = [*body, *literal[2].parameters()]
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.data -= 0.1 * gradient
    for ours, theirs in zip(model.parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tpgm_waits_until_there_is_something_to_project(benchmark, body_and_head, make_strategy):
    model, plugin = body_and_head(), TPGMPlugin()
    start = model[0].weight.detach().clone()
    make_strategy(model, HeadFirst(0.4), plugin, epochs=5).train(benchmark.train_stream[0])
    distances = (model[0].weight.detach() - start).abs().sum(1)
    assert 0 < distances.max() <= plugin.tpgm.radii[0] * (1 + 1e-5) and plugin._drawn == 3


def test_anchors_stay_within_an_experience_that_comes_in_parts(benchmark, body_and_head, make_strategy):
    model = body_and_head()
    strategy = make_strategy(model, FixedRadiusPlugin(0.02), WiSEFT(0.5), epochs=2)
    start, last = model[0].weight.detach().clone(), None
    for experience in split_online_stream(benchmark.train_stream, 8, access_task_boundaries=True):
        if experience.is_first_subexp:
            if last is not None:
                # Half of what the last part ended with: interpolated once, at the end.
                assert (last - start).abs().sum(1).max() <= 0.01 + 1e-6
            start = model[0].weight.detach().clone()
        strategy.train(experience)
        assert (model[0].weight - start).abs().sum(1).max() <= 0.02 + 1e-6
        last = model[0].weight.detach().clone()


# ---- what is given, and what is not seen ----------------------------------------------------------------------------


def test_anchors_given_to_a_plugin_are_the_weights_as_they_were_given(body_and_head, make_strategy, benchmark):
    model = body_and_head()
    given = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    plugins = FTPPlugin(anchor=model.state_dict(), exclude=()), FixedRadiusPlugin(0.0, anchor=model.state_dict())
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(1.0)
    make_strategy(model, *plugins).train(benchmark.train_stream[0])
    for name in given:
        assert torch.equal(plugins[0].ftp.state_dict()["tensors"][name]["anchor"], given[name])
    for name, anchor in plugins[1].anchor_weights.items():
        assert torch.equal(anchor, given[name])


@pytest.mark.parametrize("value", [torch.full((5, 6), torch.nan), torch.zeros(5, 6, dtype=torch.complex64)])
def test_a_given_anchor_must_be_real_and_finite(body_and_head, make_strategy, benchmark, value):
    strategy = make_strategy(body_and_head(), FixedRadiusPlugin(0.1, anchor={"0.weight": value}))
    with pytest.raises(ValueError, match=r"The anchor's '0.weight' is"):
        strategy.train(benchmark.train_stream[0])


def test_an_epoch_in_which_nothing_was_projected_is_said_once(body_and_head, make_strategy, benchmark, caplog):
    model = body_and_head()
    strategy = make_strategy(model, FTPPlugin(), epochs=2)
    strategy.optimizer_step = torch.optim.SGD(model.parameters(), lr=0.1).step
    strategy.train(benchmark.train_stream)
    assert caplog.text.count("0.weight and 1 more changed without a step that FTP saw") == 1
    caplog.clear()
    make_strategy(body_and_head(), FTPPlugin()).train(benchmark.train_stream)
    assert "FTP saw" not in caplog.text
