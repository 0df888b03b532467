"""Random views of the training images, for all methods alike: what `train.augmentation` asks for."""

from typing import Any

from avalanche.benchmarks.utils import TransformGroups
from torch import Tensor

from ftp_cl.benchmarks.dense.streams import joint_groups
from ftp_cl.benchmarks.dense.transforms import WeakJointView
from ftp_cl.plugins import WeakView
from ftp_cl.runs.config import ConfigError

_VIEWS = {"weak": WeakView(), "shift": WeakView(flip=False)}
_JOINT_VIEWS = {"weak": WeakJointView(), "shift": WeakJointView(flip=False)}


def augment_training(benchmark: Any, name: str | None) -> None:
    """Let the train stream give random views while training; what it gives for evaluation stays as it is.

    A mask is changed with its image. Views come after the benchmark's own transforms, and are drawn from torch's global
    generator when a batch is loaded.

    Args:
        benchmark: of Avalanche; the datasets of its train stream are replaced.
        name: "weak" or "shift"; None for no augmentation.

    Raises:
        ConfigError: if the train stream does not give images as tensors [C, H, W].
    """
    if name is None:
        return
    for experience in benchmark.train_stream:
        dataset = experience.dataset
        image, target = dataset.train()[0][:2]
        _check_image(image, name)
        is_joint = isinstance(target, Tensor) and target.ndim > 0
        single = TransformGroups({"train": (_VIEWS[name], None), "eval": (None, None)})
        groups = joint_groups(_JOINT_VIEWS[name]) if is_joint else single
        # The public property cannot be set.
        experience._dataset = type(dataset)([dataset], transform_groups=groups)


def _check_image(image: Any, name: str) -> None:
    if not isinstance(image, Tensor) or image.dim() != 3:
        what = f"tensors of shape {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ConfigError(
            f"train.augmentation={name} needs images as tensors [C, H, W], but the training stream gives {what}."
        )
