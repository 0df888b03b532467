"""core50: fifty household objects, filmed in eleven sessions; domain-incremental by sessions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from ftp_cl.benchmarks._checks import Size, check_choice, check_choices, check_domains
from ftp_cl.benchmarks.download import Archive, data_root, require_folder
from ftp_cl.benchmarks.image_files import ImageFiles, images_in
from ftp_cl.benchmarks.options import DescribedScenario, ImageOptions, domain_benchmark, takes

CORE50_SESSIONS = tuple(f"s{number}" for number in range(1, 12))
"""The eleven sessions: each before another background and in other light, eight indoors and three outdoors."""

CORE50_CATEGORIES = (
    "plug_adapter",
    "mobile_phone",
    "scissor",
    "light_bulb",
    "can",
    "glass",
    "ball",
    "marker",
    "cup",
    "remote_control",
)
"""The ten categories, five objects of each: objects 1 to 5 are plug adapters, and so on."""

_OBJECTS_PER_CATEGORY = 5
_ARCHIVE = Archive(
    "http://bias.csr.unibo.it/maltoni/download/core50/core50_128x128.zip",
    "745f3373fed08d69343f1058ee559e13",
    "core50_128x128",
)
_TEST_SHARE = 0.2


class Core50(ImageFiles):
    """Sessions of CORe50; images are decoded when they are read.

    An item is ``(image, target)``, see ``ImageFiles``. The frames of one object in one session are a film, so that
    neighbours are nearly equal: the test part is the last 20 % of each film, never frames from between.

    Args:
        root: holds ``core50_128x128/s<session>/o<object>/C_<session>_<object>_<frame>.png``.
        sessions: one of ``CORE50_SESSIONS`` or several.
        split: ``"train"``, ``"test"``, or ``"all"`` frames.
        object_level: the classes are the 50 objects; otherwise the 10 categories.
        size: side of the images in pixels; stored are 128.
        download: fetch the archive (4 GB) if the folder is missing.

    Raises:
        FileNotFoundError: if data is missing and cannot be downloaded.
        ValueError: for an unknown session or split, or a folder that is named otherwise.

    Source:
        Lomonaco and Maltoni, "CORe50: a New Dataset and Benchmark for Continuous Object Recognition", CoRL 2017,
        arXiv 1705.03550.
    """

    def __init__(
        self,
        root: str | Path,
        sessions: str | Sequence[str],
        split: str,
        object_level: bool = True,
        size: Size | None = 128,
        download: bool = False,
    ) -> None:
        self.sessions = check_choices("session", sessions, CORE50_SESSIONS)
        check_choice("split", split, ("train", "test", "all"))
        self.parent, self.split, self.object_level = Path(root), split, object_level
        folder = require_folder(self.parent, _ARCHIVE, download)
        items = [
            (frame, number - 1 if object_level else (number - 1) // _OBJECTS_PER_CATEGORY)
            for session in self.sessions
            for number in range(1, _OBJECTS_PER_CATEGORY * len(CORE50_CATEGORIES) + 1)
            for frame in _part(images_in(folder, f"{session}/o{number}"), split)
        ]
        numbers = range(1, _OBJECTS_PER_CATEGORY + 1) if object_level else ("",)
        self._set_files(folder, items, [f"{name}{number}" for name in CORE50_CATEGORIES for number in numbers], size)


def _part(frames: list[str], split: str) -> list[str]:
    if split == "all":
        return frames
    n_train = len(frames) - max(1, round(_TEST_SHARE * len(frames)))
    return frames[:n_train] if split == "train" else frames[n_train:]


@takes(ImageOptions)
def core50(
    train_sessions: Sequence[str] = ("s1", "s2", "s4", "s5", "s6", "s8", "s9", "s11"),
    ood_sessions: str | Sequence[str] = ("s3", "s7", "s10"),
    seed: int = 0,
    *,
    object_level: bool = True,
    size: Size = 128,
    dataset_root: str | Path | None = None,
    download: bool = True,
    **options: Unpack[ImageOptions],
) -> DescribedScenario:
    """CORe50 session by session (domain-incremental): 50 objects before other backgrounds, unseen sessions as OOD.

    The streams are ``train`` and ``test`` (the last 20 % of each film), ``validation`` if asked for, with one
    experience per training session; one ``ood_<session>`` per unseen session, with a single experience of all its
    frames; and one ``ood_<corruption>_<severity>`` per corruption and severity. The default sessions are those of the
    published NI scenario, whose test set is the three OOD streams together. Validation images are drawn from the films,
    so that they are easy: choose OOD sessions for a harder choice of settings.

    Args:
        train_sessions: in order of arrival; see ``CORE50_SESSIONS``.
        ood_sessions: sessions of the OOD streams; () for none.
        seed: draws the shots and the validation images.
        object_level: the classes are the 50 objects; otherwise the 10 categories.
        size: side of the images in pixels, 8 to 1024.
        dataset_root: holds ``core50_128x128/``; None for ~/.avalanche/data/core50.
        download: fetch the archive if it is missing (4 GB), with progress and checksum.
        options: see ``ImageOptions``.
    """
    root = data_root(dataset_root, "core50")
    trained, others = check_domains(train_sessions, ood_sessions or (), CORE50_SESSIONS, "session")

    def part(session: str, split: str) -> Core50:
        return Core50(root, session, split, object_level, size, download)

    domains = {name: (part(name, "train"), part(name, "test")) for name in trained}
    settings = {"ood_sessions": list(others), "object_level": object_level, "size": size}
    return domain_benchmark(
        "core50", domains, settings, {name: part(name, "all") for name in others}, seed=seed, **options
    )
