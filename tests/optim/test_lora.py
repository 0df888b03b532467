"""FTP on peft's adapters as users meet them: other initialisations, several adapters, merging, saving, refusals."""

import copy
import io
import logging

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from torch import nn

from ftp_cl.optim import FTP, next_adapter
from ftp_cl.optim.adapter_kinds import adapters_in
from ftp_cl.optim.penalties import l2_of_adapters
from ftp_cl.projection import LiteralState, literal_step


class Net(nn.Module):
    """A tied embedding and output, as in language models, with a linear layer between."""

    def __init__(self):
        super().__init__()
        self.tokens, self.middle, self.out = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, x):
        return self.out(torch.tanh(self.middle(self.tokens(x))))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))


def lora(model=None, **options):
    torch.manual_seed(1)
    return get_peft_model(net() if model is None else model, LoraConfig(**{"r": 2, "target_modules": ["0"], **options}))


def trained(model, steps=4, optimizer=None, **options):
    """An optimizer with FTP, after so many steps."""
    optimizer = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    ftp = FTP(model, mu=0.1, **options).attach(optimizer)
    train(model, optimizer, range(steps))
    return optimizer, ftp


def train(model, optimizer, steps):
    for step in steps:
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step // 3)).to(next(model.parameters()).dtype)
        optimizer.zero_grad()
        model(x).cos().sum().backward()
        optimizer.step()


def layer_of(model, name="0"):
    return model.get_submodule(f"base_model.model.{name}")


NAME = "0.lora_B.default.weight"


# ---- where the ball is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["pissa", "OLoRA"])
def test_a_change_taken_out_of_the_base_weight_is_kept_in_a_frozen_adapter_or_refused(init):
    model = lora(init_lora_weights=init)
    before = model(torch.ones(1, 6)).detach()
    with pytest.raises(ValueError, match=f"Adapter 'default' of 0 begins with a change .*{init!r}.*next_adapter"):
        FTP(model)
    first = layer_of(model).lora_A["default"].weight.detach().clone()
    assert next_adapter(model, merge=False) == ["default_1"]
    assert torch.equal(layer_of(model).lora_A["default"].weight, first)
    torch.testing.assert_close(model(torch.ones(1, 6)), before)
    _, ftp = trained(model)
    ftp.track()
    assert ftp.radii()[NAME] > 1e-3 and not layer_of(model).lora_B["default_1"].weight.requires_grad


def test_an_adapter_is_known_by_the_configuration_of_its_own_model():
    """Two of peft's models in one, with adapters of one name: the later one does not speak for the first."""
    both = nn.ModuleDict({"actor": lora(init_lora_weights="pissa"), "critic": lora()})
    with pytest.raises(ValueError, match=r"of actor\.0 begins with a change .*'pissa'"):
        FTP(both)
    assert FTP(both["critic"]).has_adapters


@pytest.mark.parametrize("init", ["orthogonal", "gaussian", "eva"])
def test_an_initialisation_that_changes_nothing_begins_around_nothing(init):
    model = lora(init_lora_weights=init)
    _, ftp = trained(model, steps=1)
    assert ftp.radii()[NAME] < 1e-6


def test_an_adapter_trained_before_begins_with_the_radius_of_its_longest_row():
    model = lora()
    nn.init.normal_(layer_of(model).lora_B["default"].weight)
    change = layer_of(model).get_delta_weight("default").detach()
    _, ftp = trained(model, steps=1)
    longest = change.abs().sum(1).max().item()
    assert ftp.radii()[NAME] == pytest.approx(longest, rel=1e-5)
    rows = layer_of(model).get_delta_weight("default").abs().sum(1)
    assert rows.max().item() <= longest * (1 + 1e-5) and rows.min().item() > 0


def test_dropout_is_part_of_the_vote():
    """The oracle's gradient is that by dW through the adapter's own dropped input."""
    torch.manual_seed(0)
    model = lora(lora_dropout=0.5).double()
    layer = layer_of(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    seen = {}
    layer.lora_dropout["default"].register_forward_hook(lambda _, __, x: seen.update(x=x))
    layer.register_full_backward_hook(lambda _, __, g: seen.update(g=g[0]))
    optimizer.register_step_post_hook(lambda *_: seen.update(new=layer.get_delta_weight("default").detach().clone()))
    ftp = FTP(model, mu=0.1).attach(optimizer)
    state = LiteralState()
    for step in range(6):
        train(model, optimizer, [step])
        _, state = literal_step(
            state, seen["new"], torch.zeros_like(seen["new"]), seen["g"].T @ seen["x"].detach(), mu=0.1
        )
        assert ftp.radii()[NAME] == pytest.approx(state.radius, rel=1e-9)
    assert state.radius > 0.01


def test_a_bias_of_the_adapter_is_one_row_of_what_it_adds():
    model = lora(lora_bias=True, lora_alpha=6).double()
    bias, seen = layer_of(model).lora_B["default"].bias, []
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    optimizer.register_step_post_hook(lambda *_: seen.append((3 * bias.detach().clone(), bias.grad / 3)))
    ftp, state = FTP(model, mu=0.1).attach(optimizer), LiteralState()
    for step in range(5):
        train(model, optimizer, [step])
        expected, state = literal_step(state, seen[-1][0], torch.zeros_like(bias), seen[-1][1], mu=0.1)
        torch.testing.assert_close(3 * bias.detach(), expected, rtol=1e-10, atol=1e-10)
    assert ftp.radii()["0.lora_B.default.bias"] == pytest.approx(state.radius, rel=1e-9)


def test_tied_adapters_have_one_ball_and_vote_together():
    torch.manual_seed(0)
    model = get_peft_model(Net(), LoraConfig(r=2, target_modules=["tokens", "out"])).double()
    inner = model.base_model.model
    a, b = inner.tokens.lora_embedding_A["default"], nn.Parameter(inner.tokens.lora_embedding_A["default"].t())
    inner.out.lora_B["default"].weight = b  # as peft's update_layer ties them: two parameters over one memory
    inner.out.lora_A["default"].weight = nn.Parameter(inner.tokens.lora_embedding_B["default"].t())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3)
    seen, state = {}, LiteralState()
    optimizer.register_step_post_hook(lambda *_: seen.update(new=inner.out.get_delta_weight("default").detach()))
    ftp = FTP(model, mu=0.1).attach(optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.arange(7)).cos().sum().backward()
        with torch.no_grad():  # <dL/d(dW)_r, dW_r> is <dL/dB_r, B_r>; a vote of this length along dW_r gives the same
            dots, change = ((b.grad + a.grad.T) * b).sum(1), inner.out.get_delta_weight("default")
            gradient = dots.unsqueeze(1) * change / change.square().sum(1, keepdim=True).clamp(min=1e-300)
        optimizer.step()
        expected, state = literal_step(state, seen["new"], torch.zeros_like(change), gradient, mu=0.1)
        torch.testing.assert_close(inner.out.get_delta_weight("default"), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(inner.tokens.get_delta_weight("default"), expected, rtol=1e-9, atol=1e-9)
    (radius,) = ftp.radii().values()
    assert radius == pytest.approx(state.radius, rel=1e-9) and radius > 0.01


def test_l2_sp_counts_the_change_of_tied_adapters_once(tied_adapters):
    adapters, layer = list(adapters_in(tied_adapters)), tied_adapters.base_model.model.lm_head
    for factor in adapters[0].factors():
        nn.init.normal_(factor)
    change = layer.get_delta_weight("default").detach()
    assert len(adapters) == 2 and change.any()
    torch.testing.assert_close(l2_of_adapters(adapters).detach(), change.square().sum() / 2)


def test_a_tied_adapter_is_excluded_by_any_of_its_names(tied_adapters):
    names = {name for name in FTP(tied_adapters).projected_names() if "lora" in name}
    assert names == {"model.embed_tokens.lora_embedding_A.default"}
    for pattern in ("*lm_head*", "*embed_tokens*"):
        assert not any("lora" in name for name in FTP(tied_adapters, exclude=pattern).projected_names())


# ---- several adapters, merging, deletion ---------------------------------------------------------------------------


def test_only_active_adapters_step_and_each_has_its_own_ball():
    model = lora()
    model.add_adapter("other", LoraConfig(r=3, target_modules=["0", "2"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    _, ftp = trained(model, optimizer=optimizer)
    assert set(ftp.radii()) == {NAME}
    model.base_model.set_adapter(["default", "other"])
    train(model, optimizer, range(4, 6))
    assert set(ftp.radii()) == {NAME, "0.lora_B.other.weight", "2.lora_B.other.weight"}
    assert ftp.state_dict()["tensors"]["0.lora_B.other.weight"]["steps"] == 2


def test_merging_and_unmerging_leaves_the_ball_and_a_step_while_merged_is_refused():
    model, other = lora(), lora()
    optimizer, ftp = trained(model)
    unmerged, reference = trained(other)
    model.merge_adapter()
    with pytest.raises(ValueError, match=r"Adapter 'default' of 0 is merged .* unmerge_adapter\(\) before the step"):
        optimizer.step()
    model.unmerge_adapter()
    train(model, optimizer, range(4, 7)), train(other, unmerged, range(4, 7))
    assert ftp.radii()[NAME] == pytest.approx(reference.radii()[NAME], rel=1e-3)


def test_a_deleted_adapter_is_gone_and_one_added_under_its_name_begins_anew():
    model = lora()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["0"]))
    optimizer, ftp = trained(model)
    model.set_adapter("other")
    model.delete_adapter("default")
    assert ftp.radii() == {}
    with pytest.raises(ValueError, match=r"Adapter 'default' of 0 has been deleted"):
        optimizer.step()
    model.add_adapter("default", LoraConfig(r=2, target_modules=["0"]))
    model.set_adapter("default")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    ftp.detach()
    ftp.attach(optimizer)
    train(model, optimizer, [0])
    own = ftp.state_dict()["tensors"][NAME]
    assert own["steps"] == 1 and own["value"] == pytest.approx(1e-8)


# ---- state -----------------------------------------------------------------------------------------------------------


def test_training_resumes_to_the_last_bit_and_copies_do_too():
    model = lora(modules_to_save=["2"])
    optimizer, _ = trained(model, steps=4)
    copied, file = copy.deepcopy(model), io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    train(model, optimizer, range(4, 8))
    again, ftp = trained(copied, steps=0)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    ftp = copy.deepcopy(ftp)  # of a copy of the model: another one is attached
    assert ftp.state_dict()["tensors"][NAME]["steps"] == 4
    train(copied, again, range(4, 8))
    for one, other in zip(model.parameters(), copied.parameters(), strict=True):
        assert torch.equal(one, other)


def test_nothing_of_the_weights_size_is_kept():
    _, ftp = trained(lora(r=4))
    own = ftp.state_dict()["tensors"]
    assert set(own) == {NAME}
    assert sum(value.numel() for value in own[NAME].values() if torch.is_tensor(value)) == 8 + 2  # rows, and a shape


def test_a_state_of_another_rank_or_kind_is_refused():
    _, ftp = trained(lora(r=4))
    with pytest.raises(ValueError, match=r"'0.lora_B.default.weight' has shape \(8, 4\), the model's tensor \(8, 2\)"):
        FTP(lora(r=2)).load_state_dict(ftp.state_dict())
    broken = copy.deepcopy(ftp.state_dict())
    broken["tensors"][NAME].pop("norms")
    with pytest.raises(ValueError, match="its 'norms' is missing"):
        FTP(lora(r=4)).load_state_dict(broken)
    broken = copy.deepcopy(ftp.state_dict())
    broken["tensors"][NAME]["norms"] = torch.ones(3)
    with pytest.raises(ValueError, match="has norms of 3 rows, the adapter 8 rows"):
        FTP(lora(r=4)).load_state_dict(broken)
    by_name = dict(lora(r=4).named_parameters())
    plain = FTP(by_name)
    assert plain.projected_names()
    opt = torch.optim.SGD(by_name.values(), lr=0.1)
    for parameter in by_name.values():
        parameter.grad = torch.ones_like(parameter)
    plain.attach(opt), opt.step()
    with pytest.raises(ValueError, match="is that of a tensor, which it is not"):
        FTP(lora(r=4)).load_state_dict(plain.state_dict())


# ---- precision and quantised bases -----------------------------------------------------------------------------------


def test_bfloat16_is_projected_and_float16_refused():
    with pytest.raises(ValueError, match=r"Adapter 'default' of 0 is of float16"):
        FTP(lora().half())
    model = lora().bfloat16()
    optimizer, ftp = trained(model, steps=8)
    assert ftp.radii()[NAME] > 1e-3
    model.half()
    with pytest.raises(ValueError, match=r"Adapter 'default' of 0 is of float16"):
        optimizer.step()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_base_is_not_touched(bits):
    import bitsandbytes as bnb

    torch.manual_seed(0)
    kinds = {4: bnb.nn.Linear4bit(64, 8, quant_type="nf4"), 8: bnb.nn.Linear8bitLt(64, 8, has_fp16_weights=False)}
    base = nn.Sequential(nn.Linear(6, 64), kinds[bits]).to("cpu")
    setattr(base, f"is_loaded_in_{bits}bit", True)
    model = lora(base, target_modules=["1"])
    quantised = layer_of(model, "1").base_layer.weight.clone()
    _, ftp = trained(model)
    assert ftp.radii()["1.lora_B.default.weight"] > 1e-3
    output = model(torch.ones(1, 6))
    with pytest.raises(ValueError, match="its base weight is of "):
        next_adapter(model, merge=True)
    assert next_adapter(model) == ["default_1"]
    assert torch.equal(model(torch.ones(1, 6)), output)
    assert torch.equal(layer_of(model, "1").base_layer.weight, quantised)


def test_a_step_within_autocast_is_the_same():
    weights = []
    for enabled in (False, True):
        model = lora()
        optimizer, _ = trained(model)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            optimizer.step()
        weights.append(layer_of(model).lora_B["default"].weight.detach())
    assert torch.equal(*weights)


# ---- what is not finite, and what is refused -------------------------------------------------------------------------


def test_a_row_that_is_not_finite_is_left_and_the_others_are_projected():
    model = lora()
    optimizer, ftp = trained(model)
    weight = layer_of(model).lora_B["default"].weight
    train(model, optimizer, [4])
    weight.data[3] = torch.inf
    weight.grad.zero_()
    optimizer.step()
    assert not weight[3].isfinite().any() and weight[[0, 1, 2]].isfinite().all()
    assert ftp.skipped()[NAME] >= 1 and 0 < ftp.radii()[NAME] < 10


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (LoraConfig(r=2, target_modules=["0"], use_dora=True), "DoraLinearVariant"),
        (LoKrConfig(r=2, target_modules=["0"]), "lokr's Linear"),
        (IA3Config(target_modules=["0"], feedforward_modules=[]), "ia3's Linear"),
        (AdaLoraConfig(init_r=2, target_r=1, target_modules=["0"], total_step=9), "adalora's SVDLinear"),
        (LoraConfig(r=2, target_modules=[], target_parameters=["0.weight"]), "lora's ParamWrapper"),
        (LoraConfig(r=2, target_modules=["4"]), "lora's MultiheadAttention"),
        (LoHaConfig(r=2, target_modules=["3"], use_effective_conv2d=True), "LoHa with use_effective_conv2d"),
    ],
)
def test_what_cannot_be_bounded_is_refused_by_name_and_may_be_excluded(config, kind):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Conv2d(2, 2, 3), nn.MultiheadAttention(4, 1))
    model = get_peft_model(model, config)
    with pytest.raises(ValueError, match=f"whose change FTP cannot bound, {kind}.*exclude='") as told:
        FTP(model)
    pattern = str(told.value).rpartition("exclude='")[2].rstrip("'.")
    assert FTP(model, exclude=pattern).projected_names() is not None


def test_weights_trained_in_full_beside_adapters_are_named(caplog):
    model = lora(modules_to_save=["2"])
    with caplog.at_level(logging.WARNING):
        FTP(model, exclude="*modules_to_save*")
        assert not caplog.records
        ftp = FTP(model)
    assert "FTP projects 2.modules_to_save.default.bias and 1 more" in caplog.text
    assert "exclude='*modules_to_save*'" in caplog.text and NAME in ftp.projected_names()
    assert "0.lora_A.default.weight" not in ftp.projected_names()


def test_factors_by_name_are_told_to_be_better_given_with_the_model(caplog):
    FTP(lora().named_parameters())
    assert "given the model itself" in caplog.text


def test_an_adapter_may_be_excluded_by_any_of_its_factors():
    for pattern in ("*lora_A*", "*lora_B*", "0"):
        assert NAME not in FTP(lora(), exclude=pattern).projected_names()


def test_a_given_anchor_with_an_adapter_that_changes_something_is_refused():
    model = lora()
    FTP(model, anchor=model.state_dict())
    nn.init.ones_(layer_of(model).lora_B["default"].weight)
    with pytest.raises(ValueError, match="The anchor has weights of adapter 'default' of 0"):
        FTP(model, anchor=model.state_dict())
