"""A convolutional network small enough for tests and first runs on a CPU."""

from torch import nn

from ftp_cl.models.continual_classifier import ContinualClassifier, Normalization


def small_cnn(in_channels: int = 1, *, head: str = "cosine", width: int = 16) -> ContinualClassifier:
    """Build three 3 x 3 convolutions with BatchNorm and ReLU, the last two of stride 2, and global average pooling.

    For images of 8 x 8 pixels and more, not normalised. With the default width it has about 23 thousand weights and an
    experience of scikit-learn's digits takes seconds. Weights are drawn from torch's global generator.

    Args:
        in_channels: Channels of the images; 1 for grey ones.
        head: "cosine" or "linear".
        width: Channels of the first convolution; features are 4 times as many.

    Raises:
        ValueError: There is no head of this name, or a number is not a positive integer.
    """
    for name, number in (("in_channels", in_channels), ("width", width)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a positive integer, got {number!r}")
    backbone = nn.Sequential(
        *_block(in_channels, width, stride=1),
        *_block(width, 2 * width, stride=2),
        *_block(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    unchanged = Normalization(mean=[0.0] * in_channels, std=[1.0] * in_channels)
    return ContinualClassifier(backbone, 4 * width, head=head, normalization=unchanged)


def _block(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    # BatchNorm's shift stands in for a bias of the convolution.
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]
