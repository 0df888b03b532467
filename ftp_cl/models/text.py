"""Language models as encoders of texts: token ids -> features, under a head that grows with the stream."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftp_cl.benchmarks.tokens import MINILM, pretrained_folder
from ftp_cl.models.continual_classifier import ContinualClassifier
from ftp_cl.models.lora import add_lora

_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class TextEncoder(nn.Module):
    """A model of transformers whose last hidden states are averaged over the tokens of each text.

    Shapes: token ids [B, L], int64, negative where there is no token -> features [B, D]. Columns in which no text
    has a token are left out, for which a forward waits for the device once.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model

    def forward(self, ids: Tensor) -> Tensor:
        """Return the features of texts.

        Raises:
            ValueError: The input is not a batch of token ids, or has one that the model does not know.
        """
        if ids.ndim != 2 or ids.is_floating_point():
            raise ValueError(f"the model takes token ids [B, L], got {list(ids.shape)} of {ids.dtype}")
        length, largest = torch.stack([(ids >= 0).sum(1).max(), ids.max()]).tolist()
        if largest >= (known := self.model.get_input_embeddings().num_embeddings):
            raise ValueError(f"the model knows {known} tokens, got the id {largest}: use its own tokenizer")
        ids = ids[:, : max(1, length)]
        mask = ids >= 0
        states = self.model(input_ids=ids.clamp(min=0), attention_mask=mask.long()).last_hidden_state
        weights = mask.unsqueeze(2).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def text_classifier(
    pretrained: str = MINILM, *, head: str = "cosine", lora: Mapping[str, Any] | None = None
) -> ContinualClassifier:
    """Build a language model with a head that grows; it takes token ids, see ``TextEncoder``.

    Its dropout is that of its configuration. Where it has a layer for pooling, that is left out. Of a model with an
    encoder and a decoder, the encoder is taken.

    Args:
        pretrained: "minilm" (all-MiniLM-L6-v2, 22.7 million weights, 384 features; ``pip install 'ftp-cl[text]'``), a
            folder that ``save_pretrained`` wrote, or a name on the Hugging Face hub.
        head: "cosine" or "linear".
        lora: See ``add_lora``; None trains the model's own weights.

    Raises:
        ModuleNotFoundError: A package is not installed; says what brings it.
        ValueError: There is no such model, or MiniLM's file is not the published one.
    """
    folder = pretrained_folder(pretrained)
    if pretrained == MINILM:
        path = Path(folder) / "model.safetensors"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != _MINILM_SHA256:
            raise ValueError(
                f"{path} has the sha256 {found} instead of {_MINILM_SHA256}: it is not the published model"
            )
    model = _auto_model(pretrained, folder)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    encoder = TextEncoder(model)
    if lora is not None:
        add_lora(encoder, **lora)
    classifier = ContinualClassifier(encoder, int(model.config.hidden_size), head=head)
    classifier.pretrained = pretrained
    return classifier


def _auto_model(name: str, folder: str) -> Any:
    try:
        from transformers import AutoModel
        from transformers.utils import logging
    except ModuleNotFoundError:
        raise ModuleNotFoundError("model=text needs transformers: pip install 'ftp-cl[text]'") from None
    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return AutoModel.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        words = " ".join(str(error).split())
        raise ValueError(f"there is no model {name!r}, neither as a folder nor on the hub: {words}") from error
    finally:
        if shows_progress:
            logging.enable_progress_bar()
