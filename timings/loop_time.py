"""What an iteration of `ftp-cl run` costs beside one of a loop written by hand, and how many images workers load.

    python timings/loop_time.py --docs docs/timings.md
    python timings/loop_time.py --docs docs/timings.md --device cuda --precision bf16-mixed \
        --model vit_base_patch16_224 --size 224 --batch 64
    python timings/loop_time.py --only loaders --workers 1 2 4 8 16

The two loops have the same images in memory, the same model, optimizer and precision, and take turns by epochs. Each
epoch is timed from the beginning of its second iteration to the end of its last one. The loaders read JPEG files of 400
x 300 pixels, cut to 224 and mirrored or not, in batches of 64; what the images show does not matter to a decoder, how
detailed they are does.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from PIL import Image
from step_time import write_docs
from torch.utils.data import DataLoader, TensorDataset

from ftp_cl.benchmarks import image_folder
from ftp_cl.models import pretrained
from ftp_cl.runs.config import load_config
from ftp_cl.runs.data import augment_training
from ftp_cl.runs.run import run
from ftp_cl.runs.workers import WorkerLoader

CLASSES, ITERATIONS = 10, 12
DTYPES = {"32": None, "bf16-mixed": torch.bfloat16}


def pictures(batch: int, size: int, seed: int) -> Any:
    """A benchmark of one experience, in memory: `benchmark.name=loop_time:pictures`."""
    generator = torch.Generator().manual_seed(seed)

    def data(count: int) -> TensorDataset:
        labels = torch.arange(count) % CLASSES
        dataset: Any = TensorDataset(torch.rand(count, 3, size, size, generator=generator), labels)
        dataset.targets = labels.tolist()
        return dataset

    return nc_benchmark(data(batch * ITERATIONS), data(CLASSES), n_experiences=1, task_labels=False, seed=seed)


class Clock(SupervisedPlugin[Any]):
    """Seconds of each epoch of the last run, per iteration."""

    epochs: ClassVar[list[float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Count the iterations of this one."""
        self.done = 0

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Begin with the second."""
        self.done += 1
        if self.done == 2:
            self.start = now(strategy.device)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """The last one has ended."""
        type(self).epochs.append((now(strategy.device) - self.start) / (self.done - 1))


def now(device: torch.device) -> float:
    """Seconds, when the device has done what it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def by_hand(options: argparse.Namespace) -> float:
    """Seconds per iteration of an epoch, as one would write it without any library of loops."""
    device, dtype = torch.device(options.device), DTYPES[options.precision]
    torch.manual_seed(0)
    model = pretrained(options.model, weights="random", head="linear").to(device)
    model.head.activate(list(range(CLASSES)))
    model.to(device)
    data = pictures(options.batch, options.size, 0).train_stream[0].dataset.train()
    loader = DataLoader(data, options.batch, shuffle=True, pin_memory=device.type == "cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    start = 0.0
    model.train()
    for number, (images, labels, *_) in enumerate(loader):
        if number == 1:
            start = now(device)
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            features = model.features(images)
        torch.nn.functional.cross_entropy(model.head(features.float()), labels).backward()
        optimizer.step()
    return (now(device) - start) / number


def by_run(options: argparse.Namespace, folder: Path) -> float:
    """The same of `ftp-cl run`."""
    part = "benchmark.name=loop_time:pictures"
    words = [
        *("benchmark=own", part, f"+benchmark.batch={options.batch}", f"+benchmark.size={options.size}"),
        *("model=timm", f"model.architecture={options.model}", "model.weights=random", "model.head=linear"),
        *("method=naive", "train.epochs=1", f"train.batch_size={options.batch}", "optimizer.lr=1e-4"),
        *("train.softmax=full", "train.schedule=constant", "train.freeze_batch_norm=false", "eval.ood_every=never"),
        *(f"precision={options.precision}", f"device={options.device}", "plugins=[{name: 'loop_time:Clock'}]"),
    ]
    run(load_config(words), folder)
    return sys.modules["loop_time"].Clock.epochs[-1]


def loops_table(options: argparse.Namespace) -> str:
    """Medians over the rounds, and of the ratio within a round."""
    with tempfile.TemporaryDirectory() as folder:
        by_hand(options), by_run(options, Path(folder) / "warm")
        pairs = [(by_hand(options), by_run(options, Path(folder) / str(i))) for i in range(options.rounds)]
    hand, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(ours / hand for hand, ours in pairs)
    return (
        "| model | px | batch | precision | by hand, ms | ftp-cl run, ms | ratio |\n|---|---|---|---|---|---|---|\n"
        f"| {options.model} | {options.size} | {options.batch} | {options.precision} | {hand * 1e3:.1f} | "
        f"{ours * 1e3:.1f} | {ratio:.3f} |"
    )


def loaders_table(options: argparse.Namespace) -> str:
    """Images per second of the training loader, after its first batches."""
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), options.photographs)
        benchmark = image_folder(folder)
        augment_training(benchmark, "crop")
        data = benchmark.train_stream[0].dataset.train()
        speeds = [(workers, images_per_second(data, workers)) for workers in (0, *options.workers)]
    lines = [f"| {workers or 'null'} | {speed:.0f} |" for workers, speed in speeds]
    return "\n".join(["| `loader.workers` | images per second |", "|---|---|", *lines])


def write_photographs(folder: Path, count: int) -> None:
    """JPEG files of about the detail of photographs: noise at several scales."""
    generator = np.random.default_rng(0)
    for index in range(count):
        image = np.zeros((300, 400, 3))
        for scale in (1, 4, 16, 64):
            noise = generator.normal(size=(-(-300 // scale), -(-400 // scale), 3))
            image += scale**0.5 * np.kron(noise, np.ones((scale, scale, 1)))[:300, :400]
        for part in ("train", *(["test"] if index < CLASSES else [])):
            path = folder / part / str(index % CLASSES) / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((128 + 8 * image).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def images_per_second(data: Any, workers: int) -> float:
    """Over one epoch, from its third batch on."""
    loader: Any = DataLoader(data, 64, shuffle=True, collate_fn=data.collate_fn)
    if workers:
        loader = WorkerLoader(loader, workers, pin_memory=False)
    moments = [time.perf_counter() for _ in loader]
    return 64 * (len(moments) - 3) / (moments[-2] - moments[1])  # the last batch is a smaller one


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["loops", "loaders"], nargs="+", default=["loops", "loaders"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", default="resnet18", help="of timm")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=DTYPES, default="32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--photographs", type=int, default=1500)
    parser.add_argument("--docs", type=Path, help="put the tables between the markers in this Markdown file")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {threads} threads of torch"
    for name, table in (("loops", loops_table), ("loaders", loaders_table)):
        if name in options.only:
            text = f"{machine}, torch {torch.__version__}.\n\n{table(options)}"
            print(f"\n{text}\n", flush=True)
            if options.docs:
                write_docs(options.docs, f"gpu {name}" if options.device == "cuda" else name, text)


if __name__ == "__main__":
    main()
