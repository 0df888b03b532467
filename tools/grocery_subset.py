"""Copy the part of GroceryStoreDataset that configs/vit_rates.yaml trains on into folders, for benchmark=image_folder.

    python tools/grocery_subset.py GroceryStoreDataset ~/.avalanche/data/grocery_subset

Every fifth class (17 of 81): all of its training photographs, five of its test photographs, evenly spaced in the
published list, and its product picture as OOD. The data set (Klasson et al. 2019, arXiv 1901.00711) has an MIT licence.
"""

import argparse
import shutil
from collections import defaultdict
from pathlib import Path

from ftp_cl.benchmarks import GroceryStore

EVERY, TESTED = 5, 5


def main() -> None:
    """Copy; what is there already is replaced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a clone of the published repository")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    for part, folder in {"train": "train", "test": "test", "iconic": "ood_iconic"}.items():
        dataset = GroceryStore(arguments.source.expanduser(), part)
        of_class = defaultdict(list)
        for index, target in enumerate(dataset.targets):
            of_class[target].append(dataset.root / dataset.paths[index])
        for target in range(0, len(dataset.classes), EVERY):
            photographs = of_class[target]
            if part == "test":
                photographs = photographs[:: len(photographs) // TESTED][:TESTED]
            place = arguments.target.expanduser() / folder / dataset.classes[target]
            place.mkdir(parents=True, exist_ok=True)
            for photograph in photographs:
                shutil.copy(photograph, place)


if __name__ == "__main__":
    main()
