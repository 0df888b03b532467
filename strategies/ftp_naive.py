"""Fine-tune a pretrained model on a class-incremental stream with FTP, in plain Avalanche.

    python strategies/ftp_naive.py
    python strategies/ftp_naive.py --ensemble         # the trained head and LDA decide together (docs/ftp_or_not.md)
    python strategies/ftp_naive.py --without-ftp      # the same without the projection

Copy this file and change what you need.
"""

import argparse

import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import InteractiveLogger
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin

from ftp_cl.benchmarks import split_emoji
from ftp_cl.models import pretrained
from ftp_cl.plugins import FreezeBatchNorm, FreshOptimizer, FTPPlugin, LDAEnsemble, SeparatedSoftmax


def main() -> None:
    """Train on the stream, then print the accuracy on each test stream."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10, help="per experience")
    parser.add_argument("--lr", type=float, default=3e-3, help="one rate for backbone and head")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ensemble", action="store_true", help="with LDA on adapted and on frozen features")
    parser.add_argument("--without-ftp", action="store_true")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    benchmark = split_emoji(n_experiences=5, train_domains=("noto",), size=48, seed=arguments.seed)
    model = pretrained("efficientnet_lite0")

    plugins = [
        SeparatedSoftmax(),  # new classes compete with each other, not with classes whose images are gone
        FreshOptimizer(),  # Adam's moments belong to the experience that they came from
        FreezeBatchNorm(),  # small tasks would ruin the running statistics
    ]
    # FTP anchors each weight tensor at the start of an experience and learns its radius. The head is left free.
    if not arguments.without_ftp:
        plugins.append(FTPPlugin())
    if arguments.ensemble:
        plugins.append(LDAEnsemble())

    strategy = Naive(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=0.0),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=16,
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
        if name not in ("train", "validation"):
            strategy.evaluator.reset_last_metrics()
            metrics = strategy.eval(stream)
            (accuracy,) = (value for key, value in metrics.items() if key.startswith("Top1_Acc_Stream"))
            print(f"{name:20} {100 * accuracy:5.1f} %")


if __name__ == "__main__":
    main()
