"""A small model with every kind of tensor, and a deterministic way to train it."""

import pytest
import torch
from torch import nn


class SmallNet(nn.Module):
    """Convolution, normalisation, linear head, and a 0-d scale: 4-d, 2-d, 1-d and 0-d parameters."""

    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Linear(4, classes)

    def forward(self, images):
        features = torch.relu(self.conv(self.norm(images))).mean(dim=(2, 3))
        return self.head(features * self.scale)


@pytest.fixture
def make_model():
    """Models with the same weights at every call."""

    def make(classes=3):
        torch.manual_seed(0)
        return SmallNet(classes)

    return make


@pytest.fixture
def batch():
    """(images, labels) of a given number: the same number, the same batch."""

    def make(number):
        generator = torch.Generator().manual_seed(number)
        return torch.randn(8, 2, 5, 5, generator=generator), torch.randint(0, 3, (8,), generator=generator)

    return make


@pytest.fixture
def train(batch):
    """Optimizer steps on numbered batches, through a closure, which every optimizer takes."""

    def run(model, optimizer, steps):
        for number in steps:
            images, labels = batch(number)

            def closure(images=images, labels=labels):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(images), labels)
                loss.backward()
                return loss

            optimizer.step(closure)

    return run


@pytest.fixture
def assert_same_weights():
    """Bit for bit, tensor by tensor."""

    def check(left, right):
        for (name, a), (other, b) in zip(left.state_dict().items(), right.state_dict().items(), strict=True):
            assert name == other
            assert torch.equal(a, b), name

    return check


@pytest.fixture
def tied_adapters():
    """A tiny causal model whose adapters peft's ensure_weight_tying ties: two parameters over one memory."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=9,
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=True,
    )
    tied = LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True)
    return get_peft_model(LlamaForCausalLM(config), tied)
