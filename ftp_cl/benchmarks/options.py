"""What the benchmarks of this package have in common: options that are documented once, and passed on whole."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks._checks import check_choice
from ftp_cl.benchmarks._dataset import LabelledDataset, NamedDataset

if TYPE_CHECKING:
    from ftp_cl.benchmarks.scenario import DescribedScenario
else:
    DescribedScenario = "DescribedScenario"  # importing Avalanche takes seconds; the benchmarks have the name from here

Transform = Callable[[Any], Any]
Function = TypeVar("Function", bound=Callable[..., Any])


class SplitOptions(TypedDict, total=False):
    """Options of every benchmark.

    Attributes:
        validation_fraction: share of each class's training images that is set aside, one at least; None for no
            validation stream.
        return_task_id: give the experience's index as task label, instead of 0.
        train_transform: from a PIL image in RGB of size x size; the default is a float tensor [3, size, size] in
            [0, 1], for the models of this package normalise their inputs themselves. None leaves images as they are.
        eval_transform: the same for evaluation.
    """

    validation_fraction: float | None
    return_task_id: bool
    train_transform: Transform | None
    eval_transform: Transform | None


class ImageOptions(SplitOptions, total=False):
    """Options of benchmarks of published images or your own.

    Attributes:
        shots: training images per class, and per domain where domains arrive one by one; None for all. Fewer shots are
            a subset of more.
        corruptions: names of ``CORRUPTIONS``, one or several, or "all"; None for none. Each of a severity is a stream
            ``ood_<corruption>_<severity>``.
        severities: 1 (weak) to 5, one or several.
        corrupted: of which stream the corrupted images are: "test", or "validation" to choose values by.
        corruption_cache: where to keep images that are corrupted; None keeps none.
    """

    shots: int | None
    corruptions: str | Sequence[str] | None
    severities: int | Sequence[int]
    corrupted: str
    corruption_cache: str | Path | None


class ClassOptions(ImageOptions, total=False):
    """Options of the class order.

    Attributes:
        fixed_class_order: the class indices in order of arrival, instead of the order drawn.
        first_exp_with_half_classes: half of the classes arrive first, the others in n_experiences - 1 equal parts.
    """

    fixed_class_order: Sequence[int] | None
    first_exp_with_half_classes: bool


class TextOptions(TypedDict, total=False):
    """Options of benchmarks of texts.

    Attributes:
        shots: training texts per class, and per domain where domains arrive one by one; None for all. Fewer shots are
            a subset of more.
        validation_fraction: share of each class's training texts that is set aside, one at least; None for no
            validation stream.
        return_task_id: give the experience's index as task label, instead of 0.
        tokenizer: of which model: "minilm", a folder, or a name on the Hugging Face hub.
        max_length: longer texts are cut there, in tokens.
    """

    shots: int | None
    validation_fraction: float | None
    return_task_id: bool
    tokenizer: str
    max_length: int


_KINDS: tuple[type[Any], ...] = (SplitOptions, ImageOptions, ClassOptions)
"""Each has the options of those before it."""

_DEFAULTS: dict[str, Any] = {
    "tokenizer": "minilm",
    "max_length": 128,
    "corruptions": None,
    "severities": (1, 2, 3, 4, 5),
    "corrupted": "test",
    "corruption_cache": None,
    "shots": None,
    "validation_fraction": None,
    "fixed_class_order": None,
    "first_exp_with_half_classes": False,
    "return_task_id": False,
    "train_transform": to_tensor,
    "eval_transform": to_tensor,
}

_OUTCOME = """Returns:
    An Avalanche scenario; its ``description`` records the settings, classes and sizes. Where classes arrive one after
    another, it records which items are for validation and, with few labels, for training.

Raises:
    FileNotFoundError: in one sentence, if data is missing and cannot be downloaded.
    ValueError: in one sentence, for an argument that is out of range, or data that cannot be read or contradict
        themselves.
"""


def takes(options: type[Any], **defaults: Any) -> Callable[[Function], Function]:
    """Let a benchmark ``f(..., **options: Unpack[options])`` have a complete signature, defaults and documentation.

    Args:
        options: ``SplitOptions``, ``ImageOptions``, ``ClassOptions`` or ``TextOptions``.
        defaults: those that differ from the usual ones.
    """
    documented = _KINDS[: _KINDS.index(options) + 1] if options in _KINDS else (options,)
    values = {**_DEFAULTS, **defaults}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=values[name], annotation=hint)
        for name, hint in options.__annotations__.items()
    ]

    def decorate(function: Function) -> Function:
        given = inspect.signature(function)
        signature = given.replace(parameters=[*list(given.parameters.values())[:-1], *added])

        @functools.wraps(function)
        def benchmark(*args: Any, **kwargs: Any) -> Any:
            if unknown := kwargs.keys() - signature.parameters.keys():
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument {min(unknown)!r}")
            return function(*args, **{**{p.name: p.default for p in added}, **kwargs})

        vars(benchmark)["__signature__"] = signature
        benchmark.__doc__ = "\n\n".join([*(inspect.getdoc(part) or "" for part in (function, *documented)), _OUTCOME])
        return cast(Function, benchmark)

    return decorate


def class_benchmark(
    name: str,
    train: NamedDataset,
    test: LabelledDataset,
    settings: Mapping[str, Any],
    ood: Mapping[str, NamedDataset] | None = None,
    validation: LabelledDataset | None = None,
    *,
    identities: Sequence[str] | None = None,
    **options: Any,
) -> DescribedScenario:
    """Return what ``split_classes`` makes, with OOD streams of the datasets in ``ood`` and of corruptions.

    Args:
        name: of the benchmark, as ``train``, ``test`` and ``settings`` for ``split_classes``.
        train: what to train and validate on.
        test: what to test on.
        settings: what to record.
        ood: name -> dataset, as for ``with_ood``.
        validation: what to validate on unless a share of ``train`` is set aside.
        identities: of the items of ``train``, as for ``split_classes``.
        options: the fields of ``ClassSplit``, and the options of corruptions.
    """
    # Importing Avalanche takes seconds, which users of the datasets alone need not wait.
    from ftp_cl.benchmarks.class_incremental import ClassSplit, split_classes

    corruptions = _corruptions(options)
    split = split_classes(name, train, test, ClassSplit(**options), settings, validation, identities)
    return _with_unseen(split, ood or {}, corruptions)


def domain_benchmark(
    name: str,
    domains: Mapping[str, tuple[NamedDataset, NamedDataset]],
    settings: Mapping[str, Any],
    ood: Mapping[str, NamedDataset],
    **options: Any,
) -> DescribedScenario:
    """Return what ``split_domains`` makes, with OOD streams; as ``class_benchmark``.

    Args:
        name: of the benchmark.
        domains: domain -> what to train and what to test on, in order of arrival.
        settings: what to record.
        ood: name -> dataset, as for ``with_ood``.
        options: the fields of ``DomainSplit``, and the options of corruptions.
    """
    from ftp_cl.benchmarks.domain_incremental import DomainSplit, split_domains

    corruptions = _corruptions(options)
    return _with_unseen(split_domains(name, domains, DomainSplit(**options), settings), ood, corruptions)


def _corruptions(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of corruptions out of all; return them as ``with_corruptions`` calls them."""
    called = {"severities": "severities", "corrupted": "stream", "corruption_cache": "cache"}
    given = {theirs: options.pop(name) for name, theirs in called.items() if name in options}
    return {"names": options.pop("corruptions", None) or (), **given}


def _with_unseen(
    benchmark: DescribedScenario, ood: Mapping[str, Any], corruptions: Mapping[str, Any]
) -> DescribedScenario:
    from ftp_cl.benchmarks.corruptions import with_corruptions
    from ftp_cl.benchmarks.ood import with_ood

    corrupted = corruptions.get("stream", "test")
    check_choice("corrupted stream", corrupted, ("test", "validation"))
    if corrupted not in benchmark.streams:
        raise ValueError("corrupted='validation' needs validation images: give validation_fraction=0.2, for instance.")
    if taken := {"class_names", "rename", "eval_transform"}.intersection(ood):
        raise ValueError(f"ood_{min(taken)} has a name that means something else: rename it.")
    return with_corruptions(with_ood(benchmark, **ood), **corruptions)
