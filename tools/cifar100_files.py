r"""Write CIFAR-100's files, as in its archive, from a folder of images, for benchmark=split_cifar100.

    git clone https://github.com/cyizhuo/CIFAR-100-dataset
    python tools/cifar100_files.py CIFAR-100-dataset ~/.avalanche/data/cifar100

The archive has the images in another order, so a seed draws other ones from it. results/cifar100 and results/values
have the order that this command writes, class by class, but for seeds 0 to 2 of the setting class_incremental:
`--permute 0`.
"""

import argparse
import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train": 500, "test": 100}  # images of each class


def main() -> None:
    """Write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="holds train/<class>/* and test/<class>/*, of 32 x 32 pixels")
    parser.add_argument("target", type=Path, help="gets cifar-100-python/")
    parser.add_argument("--permute", type=int, metavar="SEED", help="mix the training images (default: by class)")
    arguments = parser.parse_args()
    source, folder = arguments.source.expanduser(), arguments.target.expanduser() / "cifar-100-python"
    if folder.exists():
        parser.error(f"{folder} exists: remove it first.")
    classes = sorted(path.name for path in source.glob("train/*") if path.is_dir())
    if len(classes) != 100:
        parser.error(f"{source / 'train'} has {len(classes)} folders, where CIFAR-100 has 100 classes.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))  # so that the folder is whole or not there
    try:
        for split, count in COUNTS.items():
            files = []
            for label, name in enumerate(classes):
                of_class = sorted(source.glob(f"{split}/{name}/*"))
                if len(of_class) != count:
                    raise ValueError(f"{source / split / name} has {len(of_class)} files, where CIFAR-100 has {count}.")
                files += [(path, label) for path in of_class]
            if split == "train" and arguments.permute is not None:
                files = [files[place] for place in np.random.default_rng(arguments.permute).permutation(len(files))]
            images = [_pixels(path) for path, _ in files]
            _write(unfinished / split, {"data": np.stack(images), "fine_labels": [label for _, label in files]})
        _write(unfinished / "meta", {"fine_label_names": classes})
        unfinished.chmod(0o755)  # a temporary folder is its owner's alone
        unfinished.rename(folder)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"{folder} is ready for benchmark=split_cifar100.")


def _pixels(path: Path) -> np.ndarray:
    """Of one image, uint8 [3072], channel after channel."""
    with Image.open(path) as image:
        if image.size != (32, 32):
            raise ValueError(f"{path} has {image.width} x {image.height} pixels; CIFAR's images have 32 x 32.")
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1).reshape(-1)


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_bytes(pickle.dumps(content))


if __name__ == "__main__":
    main()
