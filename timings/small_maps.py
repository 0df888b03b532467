"""What the quick way of depthwise convolutions on small maps saves, as a multiple of its own time.

    python timings/small_maps.py            # less than a minute

Forward and backward of EfficientNet-Lite0's depthwise convolutions, and of the whole backbone, plain and quick in
turns; a figure is the median over the rounds. See `ftp_cl/models/small_maps.py`.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ftp_cl.models.backbones import efficientnet_lite_classifier
from ftp_cl.models.small_maps import quicken_small_maps

LAYERS = ((480, 5, 3), (672, 5, 3), (1152, 5, 2), (1152, 3, 2), (672, 5, 4), (1152, 5, 8))  # channels, kernel, map


def compare(plain: nn.Module, images: torch.Tensor, rounds: int) -> tuple[float, float]:
    """Median milliseconds of forward and backward, plain and quick."""
    quick = copy.deepcopy(plain)
    quicken_small_maps(quick)
    steps = [lambda model=model: _step(model, images) for model in (plain, quick)]
    for step in steps:
        step()
    times = [[_milliseconds(step) for step in steps] for _ in range(rounds)]
    first, second = zip(*times, strict=True)
    return statistics.median(first), statistics.median(second)


def _step(model: nn.Module, images: torch.Tensor) -> None:
    model(images).square().mean().backward()


def _milliseconds(act: Callable[[], None]) -> float:
    start = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Print one line for each layer, then the backbone at three sizes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| what | plain, ms | quick, ms | plain / quick |\n|---|---|---|---|")
    cases = []
    for channels, kernel, size in LAYERS:
        layer = nn.Sequential(nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False))
        cases.append((f"{channels} channels, kernel {kernel}, map {size}", layer, (channels, size)))
    backbone = efficientnet_lite_classifier().eval()
    cases += [(f"EfficientNet-Lite0, {size} px", backbone, (3, size)) for size in (32, 48, 64)]
    for name, model, (channels, size) in cases:
        images = torch.randn(options.batch, channels, size, size).to(memory_format=torch.channels_last)
        plain, quick = compare(model, images.requires_grad_(), options.rounds)
        print(f"| {name} | {plain:.1f} | {quick:.1f} | {plain / quick:.1f} |", flush=True)


if __name__ == "__main__":
    main()
