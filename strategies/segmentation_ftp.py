"""Fine-tune a segmentation model with FTP, and see how it does on art styles that training never showed.

    python strategies/segmentation_ftp.py
    python strategies/segmentation_ftp.py --without-ftp      # the same without the projection

The encoder stays near its pretrained weights; decoder and head are free. Copy this file and change what you need.
"""

import argparse

import torch
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import InteractiveLogger
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin

from ftp_cl.benchmarks.dense import SCENE_CLASSES, emoji_scenes
from ftp_cl.benchmarks.dense.streams import joint_groups
from ftp_cl.benchmarks.dense.transforms import WeakJointView
from ftp_cl.metrics.mask_record import MaskCounts
from ftp_cl.models.dense import segmenter
from ftp_cl.plugins import FreezeBatchNorm, FTPPlugin
from ftp_cl.plugins.pixel_loss import PixelCrossEntropy, SeparatedPixels


def main() -> None:
    """Train on one style, then print the mean IoU in each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--scenes", type=int, default=400, help="for training; half as many for each test")
    parser.add_argument("--lr", type=float, default=1e-3, help="one rate for encoder, decoder and head")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-ftp", action="store_true")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    benchmark = emoji_scenes(
        train_domains="noto", train_scenes=arguments.scenes, test_scenes=arguments.scenes // 2, seed=arguments.seed
    )
    model = segmenter("efficientnet_lite0", "fpn")
    plugins = [
        SeparatedPixels(),  # with n_experiences > 1: masks call earlier classes background, which must not be learned
        FreezeBatchNorm(),  # of the encoder; the decoder's layers start from nothing
    ]
    if not arguments.without_ftp:
        plugins.append(FTPPlugin())
    counts = MaskCounts(n_classes=len(SCENE_CLASSES))
    strategy = Naive(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=0.0),
        criterion=PixelCrossEntropy(),
        train_mb_size=16,
        train_epochs=arguments.epochs,
        eval_mb_size=32,
        device="cuda" if torch.cuda.is_available() else "cpu",
        plugins=plugins,
        evaluator=EvaluationPlugin(counts, loss_metrics(epoch=True), loggers=[InteractiveLogger()]),
    )
    groups = joint_groups(WeakJointView())  # image and mask are mirrored as one
    for experience in benchmark.train_stream:
        experience._dataset = type(experience.dataset)([experience.dataset], transform_groups=groups)
        strategy.train(experience)
    for name, stream in benchmark.streams.items():
        if name not in ("train", "validation"):
            strategy.eval(stream)
            print(f"{name:20} mean IoU {counts.result()[name]:5.1f} %")


if __name__ == "__main__":
    main()
