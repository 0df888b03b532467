"""Weights of timm's models from the Hugging Face hub: safetensors only, through the hub's own cache."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

_FILES = {None: "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
"""The file that timm records for a model -> its safetensors file."""


def hub_weights(architecture: str, revision: str | None = None) -> tuple[Path, str]:
    """Return the file with the weights that timm records for a name, downloaded if it is not in the cache.

    The cache is the Hugging Face hub's, which timm uses, too: ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_HUB_OFFLINE``,
    ``HF_ENDPOINT`` and ``HF_TOKEN`` count as they do there.

    Args:
        architecture: a name of timm; without a tag it has timm's first one.
        revision: branch, tag or commit of the repository; None for what timm records, which is ``main`` usually.

    Returns:
        The file, and the commit that it is of.

    Raises:
        FileNotFoundError: the file is not in the cache and the hub cannot be reached, or there is no such repository,
            revision or file; in one sentence.
        PermissionError: the repository is gated.
        ValueError: timm knows no weights of this name on the hub, or the revision is malformed.
    """
    repository, file, revision = _place(architecture, revision)
    named = repository if revision is None else f"{repository} at revision {revision}"
    try:
        with _quiet():
            path = Path(hf_hub_download(repository, file, revision=revision))
    except GatedRepoError:
        raise PermissionError(
            f"{repository} is gated: accept its terms at {constants.ENDPOINT}/{repository} and log in with hf auth "
            f"login (or set HF_TOKEN), or {_local(architecture)}"
        ) from None
    except RevisionNotFoundError:
        raise FileNotFoundError(f"{repository} has no revision {revision!r}: leave it out for the newest") from None
    except RepositoryNotFoundError:
        raise FileNotFoundError(
            f"there is no repository {repository} at {constants.ENDPOINT}, or it is private: {_local(architecture)}"
        ) from None
    except HFValidationError as error:
        raise ValueError(f"revision={revision!r} is malformed: {' '.join(str(error).split())}") from None
    except Exception as error:  # also those of the HTTP library, which is another from version to version
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            words = f"{named} has no {file}, and other files are not loaded: {_local(architecture)}"
            raise FileNotFoundError(words) from None
        if isinstance(error, OSError) and error.errno is not None:  # a full disk
            raise
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
        raise FileNotFoundError(
            f"{file} of {named} is not in the cache ({folder}) and {_reason(error)}: download it where there is a "
            f"network, or {_local(architecture)}"
        ) from None
    return path, path.relative_to(Path(constants.HF_HUB_CACHE)).parts[2]


def needs_network(architecture: str, revision: str | None = None) -> bool:
    """Whether `hub_weights` has to download this, which without a network fails after half a minute of attempts only.

    Raises:
        ValueError: timm knows no weights of this name on the hub.
    """
    repository, file, revision = _place(architecture, revision)
    cached = try_to_load_from_cache(repository, file, revision=revision)
    return not isinstance(cached, str) and not constants.HF_HUB_OFFLINE


def _place(architecture: str, revision: str | None) -> tuple[str, str, str | None]:
    """Repository, file and revision."""
    import timm

    config = timm.get_pretrained_cfg(architecture)
    if config is None or not config.hf_hub_id:
        raise ValueError(f"timm knows no weights of {architecture} on the Hugging Face hub: {_local(architecture)}")
    repository, _, recorded = config.hf_hub_id.partition("@")
    recorded_file = config.hf_hub_filename
    file = _FILES.get(recorded_file) or f"{str(recorded_file).rpartition('.')[0]}.safetensors"
    return repository, file, revision or recorded or None


def _reason(error: Exception) -> str:
    """Why nothing came from the hub."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status is None:
        return f"{constants.ENDPOINT} gave no whole answer ({type(cause).__name__})"
    return f"{constants.ENDPOINT} answered with status {status}{' (is HF_TOKEN right?)' if status == 401 else ''}"


def _local(architecture: str) -> str:
    return (
        f"name a local file of {architecture}, weights=path (model.weights=path on the command line), or "
        "weights='random'"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the hub's lines about each attempt: the error says it once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
