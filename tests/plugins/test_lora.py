"""Continual LoRA in Avalanche: what the last experience has learned stays, and the ball begins anew around it."""

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import EWCPlugin
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import TensorDataset

from ftp_cl.optim import l2_sp
from ftp_cl.optim.adapter_kinds import adapters_in
from ftp_cl.optim.penalties import l2_of_adapters
from ftp_cl.plugins import AnchorPenalty, FTPPlugin, SPDPlugin


def stream():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(60, 6), torch.arange(60) % 6)
    data.targets = data.tensors[1].tolist()
    data = as_classification_dataset(data)
    return nc_benchmark(data, data, n_experiences=3, task_labels=False, shuffle=False).train_stream


def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
    return get_peft_model(net, LoraConfig(r=2, target_modules=["0"], modules_to_save=["2"]))


class Before(SupervisedPlugin):
    """The effective weight of the adapted layer when an experience begins and ends."""

    def __init__(self):
        super().__init__()
        self.starts, self.ends = [], []

    def effective(self, strategy):
        layer = strategy.model.base_model.model[0]
        return layer.base_layer.weight.detach() + layer.get_delta_weight("default").detach()

    def before_training_epoch(self, strategy, **kwargs):
        self.starts.append(self.effective(strategy))

    def after_training_exp(self, strategy, **kwargs):
        self.ends.append(self.effective(strategy))


def run(*plugins):
    net, watch = model(), Before()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.5)
    strategy = Naive(
        model=net, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), train_mb_size=5, plugins=[*plugins, watch]
    )
    for experience in stream():
        strategy.train(experience)
    return net, watch


def test_each_experience_has_a_ball_around_the_weights_that_it_begins_with():
    plugin = FTPPlugin(exclude="*modules_to_save*", mu=0.05)
    net, watch = run(plugin)
    row = plugin.summary()["0.lora_B.default.weight"]
    moved = (watch.ends[-1] - watch.starts[-1]).abs().sum(1).max().item()
    assert 0 < moved <= row["radius"] * 1.001 + 1e-6
    for end, start in zip(watch.ends, watch.starts[1:], strict=False):
        torch.testing.assert_close(end, start)  # merged: nothing is lost in between
    assert plugin.ftp.state_dict()["tensors"]["0.lora_B.default.weight"]["steps"] == 4  # of the last one
    assert list(net.peft_config) == ["default"]


def test_around_the_initial_weights_one_ball_serves_all_experiences():
    plugin = FTPPlugin(anchor="initial", exclude="*modules_to_save*", mu=0.05)
    net, _ = run(plugin)
    assert plugin.ftp.state_dict()["tensors"]["0.lora_B.default.weight"]["steps"] == 12
    change = net.base_model.model[0].get_delta_weight("default").abs().sum(1).max().item()
    assert change == pytest.approx(plugin.summary()["0.lora_B.default.weight"]["max_distance"], rel=1e-4)


def test_a_projection_after_each_experience_refuses_adapters():
    with pytest.raises(ValueError, match="when='experience' projects weights, not the change of peft's adapters"):
        run(FTPPlugin(when="experience", exclude="*modules_to_save*"))


def test_a_method_that_pulls_the_factors_back_is_refused_beside_it():
    with pytest.raises(ValueError, match="EWCPlugin pulls an adapter's factors back to where they were"):
        run(FTPPlugin(exclude="*modules_to_save*"), EWCPlugin(1.0))


def test_l2_sp_acts_on_the_whole_change():
    net = model()
    nn.init.normal_(net.base_model.model[0].lora_B["default"].weight)
    layer, adapters = net.base_model.model[0], list(adapters_in(net))
    penalty, change = l2_of_adapters(adapters), layer.get_delta_weight("default")
    expected = l2_sp({"dW": change}, {"dW": torch.zeros_like(change)})
    torch.testing.assert_close(penalty, expected)
    factors = adapters[0].factors()
    for own, other in zip(torch.autograd.grad(penalty, factors), torch.autograd.grad(expected, factors), strict=True):
        torch.testing.assert_close(own, other)
    _, held = run(AnchorPenalty("l2_sp", alpha=0.05, exclude="*modules_to_save*"))
    _, free = run(AnchorPenalty("l2_sp", alpha=0.0, exclude="*modules_to_save*"))
    drift = [(watch.ends[-1] - watch.starts[-1]).norm().item() for watch in (held, free)]
    assert drift[0] < 0.8 * drift[1]


def test_spd_decays_adapters_to_nothing():
    plugin = SPDPlugin(exclude="*modules_to_save*")
    run(plugin)
    assert plugin.anchor_weights and not any(anchor.any() for anchor in plugin.anchor_weights.values())
