"""Finding a model's classifier: the part that a new task replaces, and that FTP therefore leaves free."""

from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from torch import nn


def find_classifier(model: nn.Module) -> tuple[set[str], str]:
    """Names of the classifier's parameters, and how they were found.

    In this order: Avalanche's `IncrementalClassifier` and `MultiHeadClassifier` modules; what the model's
    `get_classifier()` returns (timm's convention, ours too); the last `nn.Linear` that it registers.

    Raises:
        ValueError: if the model has none of these.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    grown = [
        name for name, module in modules.items() if isinstance(module, (IncrementalClassifier, MultiHeadClassifier))
    ]
    if grown:
        return _parameters_below(grown, modules), f"Avalanche's {type(modules[grown[0]]).__name__}"
    for owner in modules.values():
        found = owner.get_classifier() if callable(getattr(owner, "get_classifier", None)) else None
        classifiers = found if isinstance(found, (tuple, list)) else [found]  # distilled transformers have two
        names = [name for name, module in modules.items() if any(module is one for one in classifiers)]
        if names and _parameters_below(names, modules):
            return _parameters_below(names, modules), "get_classifier()"
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(
            f"No classifier was found in {type(model).__name__}: name its parameters in exclude, or pass exclude=() to "
            "project everything."
        )
    return _parameters_below(linear[-1:], modules), "the last linear layer"


def _parameters_below(module_names: list[str], modules: dict[str, nn.Module]) -> set[str]:
    return {
        f"{module_name}.{name}" if module_name else name
        for module_name in module_names
        for name, _ in modules[module_name].named_parameters(remove_duplicate=False)
    }
