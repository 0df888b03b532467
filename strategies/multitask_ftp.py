"""One encoder for segmentation, human parts and surface normals of PASCAL-Context, kept near its pretraining by FTP.

    python strategies/multitask_ftp.py --root /data/PASCAL_MT [--without-ftp]

FTP leaves each target's decoder and head free. Losses have the weights of facebookresearch/astmt.
"""

import argparse

import torch
from torch.nn import ModuleDict, Sequential, functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks.dense import IGNORED, PART_CLASSES, VOC_CLASSES, PascalContext
from ftp_cl.metrics.dense import angle_summary, angular_errors, confusion_matrix, mean_iou
from ftp_cl.models.dense import MaskHead, segmenter
from ftp_cl.optim import FTP
from ftp_cl.plugins.freeze_batch_norm import freeze_batch_norm
from ftp_cl.plugins.pixel_loss import NormalLoss, PixelCrossEntropy

CLASSES = {"segmentation": len(VOC_CLASSES), "human_parts": len(PART_CLASSES)}
LOSSES = {**dict.fromkeys(CLASSES, PixelCrossEntropy()), "normals": NormalLoss()}
WEIGHTS = {"segmentation": 1.0, "human_parts": 2.0, "normals": 10.0}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class AllTargets(Dataset):
    """Images with all three targets; parts are ignored in images without people."""

    def __init__(self, root: str, split: str) -> None:
        self.of = {target: PascalContext(root, split, target, (256, 256)) for target in LOSSES}
        self.with_people = {image: i for i, (image, _) in enumerate(self.of["human_parts"].samples)}

    def __len__(self) -> int:
        return len(self.of["normals"])

    def __getitem__(self, index: int):
        (image, mask), (_, normals) = self.of["segmentation"][index], self.of["normals"][index]
        position = self.with_people.get(self.of["normals"].samples[index][0])
        parts = torch.full_like(mask, IGNORED) if position is None else self.of["human_parts"][position][1]
        return to_tensor(image), {"segmentation": mask, "human_parts": parts, "normals": normals}


def main() -> None:
    """Train, then print a metric of each target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="the multi-task release of PASCAL-Context")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--without-ftp", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    train, test = (AllTargets(arguments.root, split) for split in ("train", "val"))
    models = {target: segmenter(outputs="masks" if target in CLASSES else "normals") for target in LOSSES}
    encoder = Sequential(models["normals"].normalization, models["normals"].network.encoder)
    decoders = ModuleDict({target: Sequential(*model.get_classifier()) for target, model in models.items()})
    for name, n in CLASSES.items():
        next(module for module in decoders[name].modules() if isinstance(module, MaskHead)).activate(range(n))
    model = ModuleDict({"encoder": encoder, "decoders": decoders}).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    if not arguments.without_ftp:
        FTP(model.named_parameters(), exclude=["decoders.*"]).attach(optimizer)
    freeze_batch_norm(encoder)

    def predict(images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = encoder(images.to(DEVICE))
        found = {target: decoder(features) for target, decoder in decoders.items()}
        return {**found, "normals": functional.normalize(found["normals"], dim=1)}

    for _ in range(arguments.epochs):
        for images, targets in DataLoader(train, batch_size=16, shuffle=True):
            found = predict(images)
            losses = [WEIGHTS[name] * loss(found[name], targets[name].to(DEVICE)) for name, loss in LOSSES.items()]
            optimizer.zero_grad()
            sum(losses).backward()
            optimizer.step()
    model.eval().requires_grad_(False)
    counts, angles = dict.fromkeys(CLASSES, 0), []
    for images, targets in DataLoader(test, batch_size=16):
        found = {target: values.cpu() for target, values in predict(images).items()}
        for name in counts:
            counts[name] += confusion_matrix(found[name].argmax(dim=1), targets[name], CLASSES[name])
        angles.append(angular_errors(found["normals"], targets["normals"]))
    print(*(f"{name}: mean IoU {mean_iou(matrix):.1f} %" for name, matrix in counts.items()), sep="\n")
    print(f"normals: mean angle {angle_summary(torch.cat(angles))['mean_angle']:.1f} degrees")


if __name__ == "__main__":
    main()
