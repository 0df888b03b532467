"""Models of a target for each pixel: a pretrained encoder of timm with a decoder of segmentation-models-pytorch."""

import importlib
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ftp_cl.models.backbones import PACKAGED, RANDOM, pretrained
from ftp_cl.models.continual_classifier import Normalization
from ftp_cl.models.heads import ClassifierHead, _starting_rows, live_classes
from ftp_cl.models.small_maps import quicken_small_maps

DECODERS = {
    "fpn": "FPN",
    "unet": "Unet",
    "deeplabv3plus": "DeepLabV3Plus",
    "pan": "PAN",
    "linknet": "Linknet",
    "dpt": "DPT",
}
"""Name -> class of segmentation-models-pytorch; "dpt" is for vision transformers, the others for what has a pyramid."""

OUTPUTS = ("masks", "normals")


class MaskHead(ClassifierHead):
    """A convolution whose output channels are the classes seen so far; see `ClassifierHead` for growth and masking.

    Shapes: maps [B, D, H, W] -> logits [B, classes, H, W].
    """

    _per_class = ("classifier.weight", "classifier.bias")

    def __init__(self, in_channels: int, kernel_size: int = 1, initial_classes: int = 2):
        """Create the head, with rows drawn as those of `LinearHead`."""
        super().__init__(in_channels * kernel_size**2, initial_classes)
        self.classifier = nn.Conv2d(in_channels, initial_classes, kernel_size, padding=kernel_size // 2, device="meta")
        starting = _starting_rows(0, initial_classes, self.in_features + 1)
        self.classifier.weight = nn.Parameter(starting[:, :-1].reshape(self.classifier.weight.shape))
        self.classifier.bias = nn.Parameter(starting[:, -1].contiguous())

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits of each pixel."""
        logits = self.classifier(maps).movedim(1, -1)
        masked = self._masked(logits.flatten(0, -2))
        return masked.view(*logits.shape[:-1], -1).movedim(-1, 1)

    def resize(self, num_classes: int) -> None:
        """As any head; the layer knows its size, too."""
        super().resize(num_classes)
        self.classifier.out_channels = num_classes


class DenseModel(nn.Module):
    """A network of segmentation-models-pytorch that takes images in [0, 1] of any size.

    Images are normalised, then padded at the right and at the bottom with zeros to a multiple of what the network
    needs; what comes out of the padding is cut off.

    Shapes: images [B, 3, H, W] -> logits [B, largest class id seen + 1, H, W], or normals [B, 3, H, W] of length 1.

    Attributes:
        normalization: the first layer.
        network: with `encoder`, `decoder` and `segmentation_head`.
        outputs: "masks" or "normals".
        multiple: of which the sides must be that the network sees.
    """

    def __init__(self, network: nn.Module, normalization: nn.Module, outputs: str, multiple: int) -> None:
        super().__init__()
        self.normalization, self.network = normalization, network
        self.outputs, self.multiple = outputs, multiple

    @property
    def backbone(self) -> nn.Module:
        """The encoder, which methods hold near its anchor."""
        return self.network.encoder  # type: ignore[return-value]

    @property
    def known_classes(self) -> list[int] | None:
        """The classes that were trained; None without masks."""
        live = live_classes(self.network)
        return None if live is None else live[0]

    def get_classifier(self) -> tuple[nn.Module, nn.Module]:
        """Return decoder and head: what starts from random weights, and is trained freely."""
        return self.network.decoder, self.network.segmentation_head  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, or the normals, of each pixel."""
        height, width = images.shape[-2:]
        beyond = (-width % self.multiple, -height % self.multiple)
        images = functional.pad(self.normalization(images), (0, beyond[0], 0, beyond[1]))
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        values = self.network(images)[..., :height, :width]
        return functional.normalize(values, dim=1) if self.outputs == "normals" else values


def segmenter(
    encoder: str = "efficientnet_lite0",
    decoder: str = "fpn",
    outputs: str = "masks",
    *,
    weights: str | Path | None = None,
    decoder_options: dict[str, Any] | None = None,
    **timm_options: Any,
) -> DenseModel:
    """Build a pretrained encoder with a decoder for masks that grow with the stream, or for surface normals.

    Args:
        encoder: as ``architecture`` of ``pretrained``: "efficientnet_lite0" with packaged weights, or timm's name.
        decoder: of ``DECODERS``.
        outputs: "masks" or "normals".
        weights: of the encoder, as for ``pretrained``.
        decoder_options: of the class in segmentation-models-pytorch, such as ``{"decoder_pyramid_channels": 256}``.
        **timm_options: of the encoder.

    Raises:
        ModuleNotFoundError: segmentation-models-pytorch is not installed.
        ValueError: a name is unknown, encoder and decoder do not fit, or as ``pretrained``.
    """
    for what, name, known in (("decoder", decoder, list(DECODERS)), ("outputs", outputs, list(OUTPUTS))):
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            raise ValueError(f"{what}={name!r} is unknown: {f'did you mean {near[0]}?' if near else ', '.join(known)}")
    # The whole classifier, so that its weights are checked as everywhere; of it the encoder takes what it has.
    classifier = pretrained(encoder, weights=weights, **timm_options)
    architecture = f"tf_{encoder}" if encoder in PACKAGED else encoder
    options = {**_DECODER_OPTIONS.get(decoder, {}), **(decoder_options or {})}
    network = _network(architecture, decoder, options, timm_options)
    if weights != RANDOM:
        _take_weights(network.encoder.model, classifier.backbone, architecture)  # type: ignore[union-attr, arg-type]
    quicken_small_maps(network)
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    last: Any = network.get_submodule(convolutions[-1])
    if outputs == "masks":
        network.set_submodule(convolutions[-1], MaskHead(last.in_channels, last.kernel_size[0]))
    multiple = int(getattr(network.encoder, "output_stride", 32))
    assert isinstance(classifier.normalization, Normalization)
    return DenseModel(network, classifier.normalization, outputs, multiple)


# Half of the library's widths: a decoder of as many weights as EfficientNet-Lite0 would take most of a CPU's time.
_DECODER_OPTIONS: dict[str, dict[str, Any]] = {
    "fpn": {"decoder_pyramid_channels": 128, "decoder_segmentation_channels": 64, "decoder_dropout": 0.0},
    "unet": {"decoder_channels": (128, 64, 32, 16, 16)},
    "deeplabv3plus": {"decoder_channels": 128},
}


def _network(architecture: str, decoder: str, options: dict[str, Any], timm_options: dict[str, Any]) -> nn.Module:
    try:
        library = importlib.import_module("segmentation_models_pytorch")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("masks need segmentation-models-pytorch: pip install 'ftp-cl[dense]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of timm, on names
            return getattr(library, DECODERS[decoder])(
                encoder_name=f"tu-{architecture}", encoder_weights=None, classes=3, **options, **timm_options
            )
    except Exception as error:  # architectures fail in ways of their own
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{architecture} and decoder={decoder} do not fit: {words}") from error


def _take_weights(encoder: nn.Module, classifier: nn.Module, architecture: str) -> None:
    given = classifier.state_dict()
    wanted = encoder.state_dict()
    for name in wanted:
        # With features_only, timm writes `blocks.0` as `blocks_0` in some families, and wraps others in `model.`
        found = next(
            (key for key in (name, name.removeprefix("model."), name.replace("_", ".", 1)) if key in given), None
        )
        if found is None or given[found].shape != wanted[name].shape:
            raise ValueError(f"the weights of {architecture} have no {name}: take another encoder")
        wanted[name] = given[found]
    encoder.load_state_dict(wanted)
