"""Images with a target for each pixel: masks of classes, and surface normals."""

from ftp_cl.benchmarks.dense.emoji_scenes import emoji_scenes
from ftp_cl.benchmarks.dense.masks import BACKGROUND, IGNORED, MaskDataset
from ftp_cl.benchmarks.dense.scenes import SCENE_CLASSES, EmojiScenes

__all__ = ["BACKGROUND", "IGNORED", "SCENE_CLASSES", "EmojiScenes", "MaskDataset", "emoji_scenes"]
