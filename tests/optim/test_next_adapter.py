"""The next task over peft's adapters: what they have learned is kept, and training goes on from no change."""

import pytest
import torch
from peft import LoHaConfig, LoraConfig, PeftModel, VeraConfig, get_peft_model
from torch import nn

from ftp_cl.optim import FTP, next_adapter

NAME = "0.lora_B.default.weight"


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))


def adapted(kind=LoraConfig, **options):
    """A model whose adapter changes something."""
    torch.manual_seed(1)
    model = get_peft_model(net(), kind(**{"r": 2, "target_modules": ["0"], **options}))
    return filled(model)


def filled(model):
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model


def output_of(model, inputs=None):
    return model.eval()(torch.ones(1, 6) if inputs is None else inputs).detach()


def one_step(model, **options):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ftp = FTP(model, **options).attach(optimizer)
    model.train()(torch.ones(1, 6)).cos().sum().backward()
    optimizer.step()
    return ftp


@pytest.mark.parametrize("merge", [True, False])
def test_the_next_task_begins_around_what_the_last_has_learned(merge, tmp_path):
    model = adapted(lora_dropout=0.1, lora_bias=True)
    output, base = output_of(model), model.base_model.model[0].base_layer.weight.clone()
    names = next_adapter(model, merge=merge)
    torch.testing.assert_close(output_of(model), output)
    assert torch.equal(model.base_model.model[0].base_layer.weight, base) is not merge
    assert names == ([] if merge else ["default_1"]) and next_adapter(model, merge=merge) == []
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("default." in name for name in trainable) and len(trainable) == 3
    ftp = one_step(model)
    change = model.base_model.model[0].get_delta_weight("default")
    assert ftp.radii()[NAME] == pytest.approx(1e-8) and change.abs().sum(1).max().item() <= 2e-8
    model.save_pretrained(tmp_path)
    assert (tmp_path / "default_1").exists() is not merge


def test_a_frozen_adapter_comes_back_as_the_docs_say(tmp_path):
    model = adapted(lora_dropout=0.5)
    next_adapter(model, merge=False)
    filled(model).save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(net(), tmp_path, is_trainable=True)
    again.load_adapter(tmp_path / "default_1", "default_1")
    again.base_model.set_adapter(["default", "default_1"])
    again.set_requires_grad("default_1", requires_grad=False)
    torch.testing.assert_close(output_of(again), output_of(model))
    assert all("default." in name for name, parameter in again.named_parameters() if parameter.requires_grad)
    assert isinstance(again.base_model.model[0].lora_dropout["default_1"], nn.Identity)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (LoHaConfig, {"rank_dropout": 0.5, "module_dropout": 0.5}),
        (VeraConfig, {"target_modules": ["0", "2"], "vera_dropout": 0.5}),
        (LoraConfig, {"lora_dropout": 0.5}),
    ],
)
def test_a_frozen_adapter_drops_nothing(kind, options):
    model = adapted(kind, **options)
    output = output_of(model)
    assert next_adapter(model, merge=False) == ["default_1"]
    for _ in range(4):
        torch.testing.assert_close(model.train()(torch.ones(1, 6)), output)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("left_free", ["*lora_B*bias", "*lora_B*weight"])
def test_what_is_kept_with_an_adapter_is_set_to_0_with_it(left_free, merge):
    """peft merges and copies a layer's weight and bias together, so that one of them alone would count twice."""
    model = adapted(lora_bias=True)
    ftp, output = one_step(model, exclude=left_free), output_of(model)
    ftp.next_task(merge=merge)
    torch.testing.assert_close(output_of(model), output)


def test_of_tied_adapters_both_changes_are_kept(tied_adapters):
    model = tied_adapters
    nn.init.normal_(model.base_model.model.model.embed_tokens.lora_embedding_A["default"])
    ids = torch.arange(9).view(1, -1)
    output = model.eval()(ids).logits.detach()
    assert FTP(model).next_task() == ["default_1"]
    torch.testing.assert_close(model(ids).logits, output)


def test_a_base_weight_that_two_layers_have_or_that_is_packed_is_not_merged_into():
    model = net()
    model[2] = nn.Linear(6, 8)
    model[2].weight = model[0].weight
    model = filled(get_peft_model(model, LoraConfig(r=2, target_modules=["0"])))
    with pytest.raises(ValueError, match="tied to that of another layer"):
        next_adapter(model, merge=True)
    model.base_model.model[0].base_layer = nn.Identity()  # stands for a quantised layer without `weight`
    with pytest.raises(ValueError, match="its base weight is of Identity, which would round it"):
        next_adapter(model, merge=True)
    assert next_adapter(model) == ["default_1"]
