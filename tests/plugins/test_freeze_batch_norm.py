"""FreezeBatchNorm leaves running statistics alone and everything else trainable."""

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.training import Naive
from torch import nn
from torch.utils.data import TensorDataset

from ftp_cl.plugins import FreezeBatchNorm, freeze_batch_norm


def make_benchmark():
    dataset = TensorDataset(torch.randn(24, 3, 4, 4), torch.arange(4).repeat(6))
    dataset.targets = dataset.tensors[1].tolist()
    data = as_classification_dataset(dataset)
    return nc_benchmark(data, data, n_experiences=2, task_labels=False)


def test_running_statistics_stay_through_training_with_evaluations_in_between():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
    mean, scale = model[1].running_mean.clone(), model[1].weight.detach().clone()
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), criterion=nn.CrossEntropyLoss(),
        train_mb_size=4, train_epochs=2, eval_every=1, plugins=[FreezeBatchNorm()], evaluator=None,
    )  # fmt: skip
    for experience in make_benchmark().train_stream:
        strategy.train(experience)
    assert torch.equal(model[1].running_mean, mean)
    assert model[1].num_batches_tracked == 0
    assert not torch.equal(model[1].weight, scale)


def test_only_layers_with_running_statistics_are_put_into_evaluation_mode():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.BatchNorm1d(3, track_running_stats=False)).train()
    freeze_batch_norm(model)
    assert [module.training for module in model] == [False, True, True]
