"""Old import paths of public names: they work for one release, with a warning that tells the new one."""

import importlib
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def _now_in(module: str, *names: str) -> dict[str, tuple[str, str]]:
    return {name: (module, name) for name in names}


_NEW: dict[str, dict[str, tuple[str, str]]] = {
    "ftp_cl.optim.anchored_step": _now_in(
        "ftp_cl.optim.step_rules", "StepRule", "SelectiveDecay", "FixedRadius", "AnchoredSteps"
    ),
    "ftp_cl.optim.once": {"project_once": ("ftp_cl.optim.post_hoc", "project_post_hoc")},
    "ftp_cl.report": {
        **_now_in("ftp_cl.study.aggregate", "Group", "Spread", "aggregate"),
        **_now_in("ftp_cl.study.loading", "ReportError", "Result", "load_results"),
        **_now_in("ftp_cl.study.write", "ReportPaths", "write_figure", "write_report"),
        **_now_in("ftp_cl.study.tables", "terminal_table"),
        **_now_in("ftp_cl.runs.records", "TensorProjection"),
    },
    "ftp_cl.study.groups": _now_in("ftp_cl.study.aggregate", "Group", "Spread", "aggregate"),
}
"""Old module -> each name in it: the module that has it now, and what it is called there."""


class OldPaths(MetaPathFinder, Loader):
    """Makes a module for an old path when it is imported."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Of the table's modules only."""
        return ModuleSpec(fullname, self) if fullname in _NEW else None

    def exec_module(self, module: ModuleType) -> None:
        """Its names are looked up, and warned of, when they are asked for."""

        def find(name: str) -> Any:
            if name not in _NEW[module.__name__]:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            place, new_name = _NEW[module.__name__][name]
            warnings.warn(f"{module.__name__}.{name} is {place}.{new_name} now.", DeprecationWarning, stacklevel=2)
            return getattr(importlib.import_module(place), new_name)

        vars(module)["__getattr__"] = find
