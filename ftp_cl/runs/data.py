"""The benchmark of a run: built, with the labels hidden and the images augmented that the configuration says."""

from collections.abc import Callable, Mapping
from typing import Any

from avalanche.benchmarks.utils import TransformGroups
from omegaconf import DictConfig
from torch import Tensor
from torchvision.transforms import functional
from torchvision.transforms import v2 as transforms

from ftp_cl.benchmarks import few_labels, hidden_labels
from ftp_cl.benchmarks.dense.streams import joint_groups
from ftp_cl.benchmarks.dense.transforms import WeakJointView
from ftp_cl.benchmarks.tokens import load_tokenizer
from ftp_cl.plugins import WeakView
from ftp_cl.runs.build import built
from ftp_cl.runs.config import ConfigError, plain
from ftp_cl.runs.model_keys import with_preprocessing

_VIEWS = {"weak": WeakView(), "shift": WeakView(flip=False)}
_CROPPED = (0.08, 1.0)  # shares of the area: torchvision's, and those of training on ImageNet
_JOINT_VIEWS = {"weak": WeakJointView(), "shift": WeakJointView(flip=False)}


def benchmark_of(config: DictConfig) -> tuple[Any, list[list[int]]]:
    """The benchmark to train on, and the labels that it hides from training.

    Raises:
        ConfigError: if keys do not fit the benchmark.
    """

    def build(changes: Mapping[str, Any]) -> Any:
        """Classes of a user's own benchmark are named by their numbers unless it has a `description`."""
        options = with_preprocessing({**plain(config.benchmark), **changes}, config)
        benchmark = built("benchmark", {**options, "seed": config.seed})
        if not hasattr(benchmark, "description"):
            classes = [sorted(map(int, e.classes_in_this_experience)) for e in benchmark.train_stream]
            experiences = [{"classes": own, "names": [str(label) for label in own]} for own in classes]
            benchmark.description = {"benchmark": options["name"], "experiences": experiences}
        return benchmark

    benchmark, hidden = keep_few_labels(build, plain(config.labels), config.seed)
    augment_training(benchmark, config.train.augmentation, config.train.rand_augment)
    return benchmark, hidden


def check_tokens(benchmark: Any, model: Any) -> None:
    """Check that a benchmark of texts was tokenised for the model, where both say of which model.

    Raises:
        ConfigError: they have different vocabularies.
    """
    read, known = benchmark.description.get("tokenizer"), getattr(model, "pretrained", None)
    if read is None or known is None or read == known:
        return
    if load_tokenizer(read).get_vocab() != load_tokenizer(known).get_vocab():
        raise ConfigError(
            f"benchmark.tokenizer={read} has other tokens than model.pretrained={known}: give both alike."
        )


def keep_few_labels(
    build: Callable[[Mapping[str, Any]], Any], labels: Mapping[str, Any], seed: int
) -> tuple[Any, list[list[int]]]:
    """Apply the configuration's `labels` to a benchmark.

    Args:
        build: makes the benchmark, with all labels, from the keys that are to differ from the configuration's.
        labels: `per_class`, `fraction`, `allow_fewer`, and `unlabelled`: keys of the benchmark that differ for the
            unlabelled images.
        seed: of the run.

    Returns:
        The benchmark to train on, and the labels that it hides, per experience; none if all labels are kept.

    Raises:
        ConfigError: if `unlabelled` or `allow_fewer` is given without a budget.
        ValueError: for a budget that the benchmark cannot meet.
    """
    benchmark = build({})
    budget = {key: labels[key] for key in ("per_class", "fraction", "allow_fewer") if labels[key] is not None}
    if labels["per_class"] is None and labels["fraction"] is None:
        if labels["unlabelled"] is not None:
            raise ConfigError("labels.unlabelled needs labels.per_class or labels.fraction beside it.")
        if labels["allow_fewer"] is not None:
            raise ConfigError("labels.allow_fewer needs labels.per_class beside it.")
        return benchmark, []
    budget |= {"seed": seed, "unlabelled": None if labels["unlabelled"] is None else build(labels["unlabelled"])}
    return few_labels(benchmark, **budget), hidden_labels(benchmark, **budget)


# ---- random views of the training images, for all methods alike: what `train.augmentation` asks for -----------------


def augment_training(benchmark: Any, name: str | None, rand_augment: str | None = None) -> None:
    """Let the train stream give random views while training; what it gives for evaluation stays as it is.

    A mask is changed with its image. Views come after the benchmark's own transforms, and are drawn from torch's global
    generator when a batch is loaded.

    Args:
        benchmark: of Avalanche; the datasets of its train stream are replaced.
        name: "weak", "shift" or "crop"; None for none.
        rand_augment: timm's words for RandAugment, which comes after it; None for none.

    Raises:
        ConfigError: if the train stream does not give images as tensors [C, H, W], or RandAugment is not timm's.
    """
    if name is None and rand_augment is None:
        return
    for experience in benchmark.train_stream:
        dataset = experience.dataset
        image, target = dataset.train()[0][:2]
        if not isinstance(image, Tensor) or image.dim() != 3:
            key = f"augmentation={name}" if name is not None else f"rand_augment={rand_augment}"
            what = f"tensors of shape {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ConfigError(f"train.{key} needs images as tensors [C, H, W], but the training stream gives {what}.")
        is_joint = isinstance(target, Tensor) and target.ndim > 0
        joint_view = _JOINT_VIEWS.get(name or "")
        if is_joint and (rand_augment is not None or joint_view is None):
            raise ConfigError("Images with masks have train.augmentation=weak or shift, and no train.rand_augment.")
        views = [_view(name, image)] if name is not None else []
        if rand_augment is not None:
            views += _rand_augment(rand_augment, image)
        single = TransformGroups({"train": (transforms.Compose(views), None), "eval": (None, None)})
        groups = joint_groups(joint_view) if is_joint else single
        # The public property cannot be set.
        experience._dataset = type(dataset)([dataset], transform_groups=groups)


def _view(name: str, image: Tensor) -> Any:
    if name in _VIEWS:
        return _VIEWS[name]
    crop = transforms.RandomResizedCrop(tuple(image.shape[1:]), scale=_CROPPED, antialias=True)
    return transforms.Compose([crop, transforms.RandomHorizontalFlip()])


def _rand_augment(words: str, image: Tensor) -> list[Any]:
    """Timm's, of images as tensors; it draws from the generators of Python and NumPy."""
    from timm.data.auto_augment import rand_augment_transform

    if len(image) != 3:
        raise ConfigError(f"train.rand_augment={words} is for images of three channels, not of {len(image)}.")
    grey = {"translate_const": int(0.45 * min(image.shape[1:])), "img_mean": (128, 128, 128)}
    try:
        return [functional.to_pil_image, rand_augment_transform(words, grey), functional.to_tensor]
    except (AssertionError, ValueError, NotImplementedError, KeyError) as error:
        raise ConfigError(f"train.rand_augment={words} is none of timm's, such as rand-m9-mstd0.5-inc1.") from error
