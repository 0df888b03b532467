"""Fine-tune a pretrained model on a few labelled images per class with FTP, in plain Avalanche.

    python strategies/few_labels_ftp.py
    python strategies/few_labels_ftp.py --without-ftp      # the same without the projection

Copy this file and change what you need. fixmatch_ftp.py uses the images without labels too.
"""

import argparse

import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import InteractiveLogger
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin

from ftp_cl.benchmarks import few_labels, split_emoji
from ftp_cl.models import pretrained
from ftp_cl.plugins import FreezeBatchNorm, FreshOptimizer, FTPPlugin, SeparatedSoftmax


def main() -> None:
    """Train on the labelled images, then print the accuracy on each test stream."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30, help="per experience; one has few iterations")
    parser.add_argument("--lr", type=float, default=3e-3, help="one rate for backbone and head")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", type=int, default=4, help="labelled images per class, or all that it has")
    parser.add_argument("--without-ftp", action="store_true")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    benchmark = split_emoji(n_experiences=5, train_domains=("noto",), size=48, seed=arguments.seed)
    # The train stream keeps these labels; with fewer of them the same images stay labelled.
    benchmark = few_labels(benchmark, per_class=arguments.labels, allow_fewer=True, seed=arguments.seed)
    model = pretrained("efficientnet_lite0")

    plugins = [
        SeparatedSoftmax(),  # new classes compete with each other, not with classes whose images are gone
        FreshOptimizer(),  # Adam's moments belong to the experience that they came from
        FreezeBatchNorm(),  # so few images would ruin the running statistics
    ]
    # FTP anchors each weight tensor at the start of an experience and learns its radius. The head is left free.
    if not arguments.without_ftp:
        plugins.append(FTPPlugin())

    strategy = Naive(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=0.0),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=8,
        train_epochs=arguments.epochs,
        eval_mb_size=128,
        device="cuda" if torch.cuda.is_available() else "cpu",
        plugins=plugins,
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True), loggers=[InteractiveLogger()]),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)

    # One stream per call: Avalanche averages several. OOD streams show the same classes in other art styles.
    for name, stream in benchmark.streams.items():
        if name not in ("train", "validation", "unlabelled"):
            strategy.evaluator.reset_last_metrics()
            metrics = strategy.eval(stream)
            (accuracy,) = (value for key, value in metrics.items() if key.startswith("Top1_Acc_Stream"))
            print(f"{name:20} {100 * accuracy:5.1f} %")


if __name__ == "__main__":
    main()
