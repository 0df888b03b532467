"""Pictures of what a run predicts: image, truth and prediction, of the best and the worst class of each stream."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.models.utils import avalanche_forward
from PIL import Image

from ftp_cl.metrics.mask_record import MaskRecord
from ftp_cl.models.imprinting import evaluating
from ftp_cl.runs.files import replace_files

FOLDER = "examples"


def write_examples(strategy: Any, benchmark: Any, record: MaskRecord, directory: Path) -> dict[str, dict[str, str]]:
    """Write one picture for each stream that was evaluated: the class of the highest IoU above, of the lowest below.

    A class is shown by the image that has most of its pixels. From left to right: image, truth, prediction; colours are
    those of PASCAL VOC.

    Args:
        strategy: trained.
        benchmark: with masks.
        record: of the last evaluation.
        directory: of the run.

    Returns:
        Per stream the names of the two classes, "best" and "worst", and "file", from the directory.
    """
    names = benchmark.description["class_names"]
    found: dict[str, dict[str, str]] = {}
    files: dict[Path, bytes] = {}
    for name, stream in benchmark.streams.items():
        ious = record.summary(name, range(len(names))).get("iou", {})  # type: ignore[arg-type]
        # By place, for to read a whole stream again would corrupt its images again.
        richest = record.richest(name).items()
        places = {label: place for label, place in richest if label in ious and names[label] != "background"}
        if not places:
            continue
        best, worst = max(places, key=lambda label: ious[label]), min(places, key=lambda label: ious[label])
        datasets = {experience.current_experience: experience.dataset.eval() for experience in stream}
        items = [datasets[number][index] for number, index in (places[best], places[worst])]
        rows = [_row(strategy, item, record.seen) for item in items]
        path = Path(FOLDER, f"{name}.png")
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(rows)).save(buffer, "PNG")
        files[directory / path] = buffer.getvalue()
        found[name] = {"best": names[best], "worst": names[worst], "file": path.as_posix()}
    replace_files(files)
    return found


@torch.no_grad()
def _row(strategy: Any, item: Any, seen: list[int]) -> np.ndarray:
    """Image, truth and prediction beside each other, uint8 [H, 3 W, 3]."""
    image, mask, task = item[0], item[1], item[-1]
    with evaluating(strategy.model):
        tasks = torch.tensor([task], device=strategy.device)
        scores = avalanche_forward(strategy.model, image[None].to(strategy.device), tasks)
    truth = torch.where(torch.isin(mask, torch.tensor([*seen, 255])), mask, 0)
    masks = [part.cpu().numpy().astype(np.uint8) for part in (truth, scores[0].argmax(dim=0))]
    pixels = (255 * image).round().to(torch.uint8).movedim(0, -1).cpu().numpy()
    return np.concatenate([pixels, *(_COLOURS[part] for part in masks)], axis=1)


# The colour of each class index, uint8 [256, 3]: its bits, from the lowest, spread over red, green and blue, whose
# highest bits come first.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_COLOURS = np.concatenate([np.packbits(_BITS[:, channel::3], axis=1) for channel in range(3)], axis=1)
