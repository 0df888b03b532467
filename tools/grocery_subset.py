r"""Copy a part of GroceryStoreDataset into folders, for benchmark=image_folder, small enough to train on with a CPU.

    python tools/grocery_subset.py GroceryStoreDataset ~/.avalanche/data/grocery_subset
    python tools/grocery_subset.py GroceryStoreDataset ~/.avalanche/data/grocery_quarter --every 4 --tested 6
    python tools/grocery_subset.py GroceryStoreDataset ~/.avalanche/data/grocery_half --every 2 --tested 3
    python tools/grocery_subset.py GroceryStoreDataset ~/.avalanche/data/grocery_quarter_photographs \
        --every 4 --photographs

The first is for configs/vit_lora.yaml, 17 of the 81 classes; the second for vit_rates, 21; the third for grocery, 41;
the last for values, 21.
Of each class all training photographs, a few test photographs, evenly spaced in the published list, and its product
picture as OOD, unless --photographs is given.
The data set (Klasson et al. 2019, arXiv 1901.00711) has an MIT licence.
"""

import argparse
import shutil
from collections import defaultdict
from pathlib import Path

from ftp_cl.benchmarks import GroceryStore


def main() -> None:
    """Copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a clone of the published repository")
    parser.add_argument("target", type=Path)
    parser.add_argument("--every", type=int, default=5, help="which classes: every so many, from the first (5)")
    parser.add_argument("--tested", type=int, default=5, help="test photographs of each class, or all it has (5)")
    parser.add_argument("--photographs", action="store_true", help="no product pictures")
    arguments = parser.parse_args()
    if arguments.every < 1 or arguments.tested < 1:
        parser.error("--every and --tested must be at least 1.")
    target_folder = arguments.target.expanduser()
    if target_folder.exists():
        parser.error(f"{target_folder} exists: remove it first, since classes that it holds would be trained on, too.")
    folders = {"train": "train", "test": "test"} | ({} if arguments.photographs else {"iconic": "ood_iconic"})
    for part, folder in folders.items():
        try:
            dataset = GroceryStore(arguments.source.expanduser(), part)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        of_class = defaultdict(list)
        for index, target in enumerate(dataset.targets):
            of_class[target].append(dataset.root / dataset.paths[index])
        for target in range(0, len(dataset.classes), arguments.every):
            photographs = of_class[target]
            if part == "test":
                photographs = photographs[:: max(1, len(photographs) // arguments.tested)][: arguments.tested]
            place = target_folder / folder / dataset.classes[target]
            place.mkdir(parents=True, exist_ok=True)
            for photograph in photographs:
                shutil.copy(photograph, place)
    print(f"{target_folder} is ready for benchmark=image_folder.")


if __name__ == "__main__":
    main()
