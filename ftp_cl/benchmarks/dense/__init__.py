"""Images with a target for each pixel: masks of classes, and surface normals."""

from ftp_cl.benchmarks.dense.emoji_scenes import emoji_scenes
from ftp_cl.benchmarks.dense.folders import CAMVID_CLASSES, camvid, mask_folder
from ftp_cl.benchmarks.dense.mask_files import MaskFiles
from ftp_cl.benchmarks.dense.masks import BACKGROUND, IGNORED, MaskDataset
from ftp_cl.benchmarks.dense.pascal import PART_CLASSES, VOC_CLASSES, PascalContext, pascal_context
from ftp_cl.benchmarks.dense.scenes import SCENE_CLASSES, EmojiScenes

__all__ = [
    "BACKGROUND",
    "CAMVID_CLASSES",
    "IGNORED",
    "PART_CLASSES",
    "SCENE_CLASSES",
    "VOC_CLASSES",
    "EmojiScenes",
    "MaskDataset",
    "MaskFiles",
    "PascalContext",
    "camvid",
    "emoji_scenes",
    "mask_folder",
    "pascal_context",
]
