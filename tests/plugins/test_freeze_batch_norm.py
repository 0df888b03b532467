"""FreezeBatchNorm leaves running statistics alone and everything else trainable."""

import torch
from torch import nn

from ftp_cl.plugins import FreezeBatchNorm, freeze_batch_norm


def test_running_statistics_stay_through_training_with_evaluations_in_between(benchmark, make_strategy):
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))
    mean, scale = model[1].running_mean.clone(), model[1].weight.detach().clone()
    strategy = make_strategy(model, FreezeBatchNorm(), batch_size=4, epochs=2, eval_every=1)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert torch.equal(model[1].running_mean, mean)
    assert model[1].num_batches_tracked == 0
    assert not torch.equal(model[1].weight, scale)


def test_only_layers_with_running_statistics_are_put_into_evaluation_mode():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.BatchNorm1d(3, track_running_stats=False)).train()
    freeze_batch_norm(model)
    assert [module.training for module in model] == [False, True, True]
