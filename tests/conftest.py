"""Shared by all tests: one thread, and the trajectories of the published code."""

import gc
import json
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True)  # the same examples each time
settings.load_profile("repeatable")


def pytest_collection():
    """No garbage is looked for while modules are imported, which stay, nor among them later."""
    gc.disable()


def pytest_collection_modifyitems(items):
    """Long tests come first, so that processes that share the tests end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


TENSORS = ("conv.weight", "fc.weight", "fc.bias", "pos_embed", "scale", "head.weight", "head.bias")


class Golden:
    """One precision of tests/data/ftp_reference.npz: 40 steps of the published optimizers on given gradients."""

    def __init__(self, archive, precision: str) -> None:
        self._archive, self._precision = archive, precision
        self.tolerance = 1e-12 if precision == "f64" else 2e-6

    def _tensors(self, kind: str) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(self._archive[f"{self._precision}/{kind}/{name}"]) for name in TENSORS}

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return {name: torch.nn.Parameter(value.clone()) for name, value in self._tensors("init").items()}

    def anchors(self) -> dict[str, torch.Tensor]:
        return self._tensors("anchor")

    def gradients(self) -> dict[str, torch.Tensor]:
        return self._tensors("grads")

    def weights(self, case: str) -> dict[str, torch.Tensor]:
        return self._tensors(f"{case}/params")

    def radii(self, case: str) -> torch.Tensor:
        return torch.from_numpy(self._archive[f"{self._precision}/{case}/gamma"])

    def assert_close(self, actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        torch.testing.assert_close(
            actual.detach().to(expected.dtype),
            expected,
            rtol=self.tolerance,
            atol=self.tolerance,
            msg=lambda m: f"{what}: {m}",
        )


@pytest.fixture(autouse=True)
def warnings_of_our_own_code_are_errors():
    """Those that other packages raise in their own modules stay warnings. (An ini line cannot name a package.)"""
    warnings.filterwarnings("error", module="ftp_cl")


@pytest.fixture
def reachable():
    """A walk to all objects that references lead to, but for modules, classes and what functions find in modules."""

    def walk(start):
        seen, pending = {}, [start]
        while pending:
            node = pending.pop()
            if id(node) in seen or isinstance(node, (types.ModuleType, type)):
                continue
            seen[id(node)] = node
            if isinstance(node, types.FunctionType):
                pending += [node.__closure__, node.__defaults__, node.__dict__]
            else:
                pending += gc.get_referents(node)  # frames of generators included
        return list(seen.values())

    return walk


@pytest.fixture(params=["f64", "f32"], scope="session")
def golden(request):
    with np.load(Path(__file__).parent / "data" / "ftp_reference.npz") as archive:
        yield Golden({key: archive[key] for key in archive.files}, request.param)


# ---- runs of seconds: scikit-learn's digits and a small network -----------------------------------------------------

QUICK = ["benchmark=split_digits", "model=small_cnn", "train.epochs=1", "train.batch_size=64", "threads=1"]


@pytest.fixture
def ftp_cl(tmp_path, monkeypatch, capsys):
    """Call the command line in an empty directory; returns (exit status, standard output, standard error)."""
    from ftp_cl.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*words):
        status = main(list(words))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def refused(ftp_cl):
    """Call the command line, which must refuse with exit status 2 and one sentence; returns that."""

    def call(*words):
        status, _, error = ftp_cl(*words)
        assert status == 2 and error.startswith("ftp-cl: ") and error.count("\n") == 1, error
        return error

    return call


@pytest.fixture
def quick_run(ftp_cl, tmp_path):
    """Run quickly and return the result as a dict."""

    def run(*overrides, out="run"):
        status, _, error = ftp_cl("run", *QUICK, f"out={out}", *overrides)
        assert status == 0, error
        return json.loads((tmp_path / out / "result.json").read_text())

    return run


# ---- a language model of a few thousand weights, as transformers saves it --------------------------------------------

WORDS = ["red", "green", "blue", "grey", "cat", "dog", "cow", "hen", "runs", "eats"]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """The folder of a BERT with random weights, dropout 0.1, and a tokenizer that knows ten words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_bert")
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """The folder of a Llama with random weights, and a tokenizer that knows ten words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_llama")
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, pad_token_id=0, eos_token_id=2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_files(tmp_path_factory):
    """A directory of tables: the animal is the label, the colour the domain; "hen" only in training and testing."""
    import polars as pl

    folder = tmp_path_factory.mktemp("text_files")
    for part, colours, animals, verbs in (
        ("train", ["red", "green", "blue"], WORDS[4:8], ["runs", "eats", "runs runs", "eats eats"]),
        ("test", ["red", "green", "blue", "grey"], WORDS[4:8], ["runs eats"]),
        ("ood_short", ["grey"], WORDS[4:7], [""]),
    ):
        rows = [(f"{c} {a} {v}".strip(), a, c) for c in colours for a in animals for v in verbs]
        table = pl.DataFrame(rows, schema=["text", "label", "domain"], orient="row")
        table.write_csv(folder / f"{part}.csv")
    return folder
