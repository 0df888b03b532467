"""What AdamP and SGDP share: the published form of parameter groups, and an FTP that is attached from the start."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ftp_cl.optim.ftp import FTP

ParamGroups = Mapping[str, Any] | Iterable[Mapping[str, Any]]


class DropIn(Optimizer):
    """Mixin before a torch optimizer: takes "name" and "pre" out of each group and hands them to FTP."""

    ftp: FTP

    def __init__(self, params: ParamGroups, **options: Any) -> None:
        # add_param_group, which the base class calls for each group, fills these two; FTP copies the anchors.
        self._named: list[tuple[str, nn.Parameter]] = []
        self._anchors: dict[str, Tensor] = {}
        groups = [params] if isinstance(params, Mapping) else list(params)
        chosen = any(options.get(flag) for flag in ("capturable", "differentiable"))
        chosen = chosen or any(options.get(flag) is not None for flag in ("foreach", "fused"))
        if not chosen and _fusible(groups):
            options["fused"] = True  # torch's own choice on CPU is several times slower
        super().__init__(groups, **options)  # type: ignore[arg-type]  # the optimizer behind us in the MRO

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, for a group with "params", "name" and optionally "pre".

        Raises:
            ValueError: if names are missing, or as many as parameters are not given.
        """
        if not isinstance(param_group, Mapping) or "name" not in param_group:
            raise ValueError(
                'A parameter group needs names of its parameters: {"params": [...], "name": [...], "pre": [...]}.'
            )
        group = dict(param_group)
        parameters = _as_list(group["params"], Tensor)
        names = _as_list(group.pop("name"), str)
        anchors = _as_list(group.pop("pre"), Tensor) if group.get("pre") is not None else []
        if len(names) != len(parameters):
            raise ValueError(f'A group has {len(parameters)} "params" but {len(names)} "name".')
        if anchors and len(anchors) != len(parameters):
            raise ValueError(f'A group has {len(parameters)} "params" but {len(anchors)} "pre".')
        super().add_param_group({**group, "params": parameters})
        self._named += zip(names, parameters, strict=True)
        self._anchors.update(zip(names, anchors, strict=False))
        if hasattr(self, "ftp"):
            self._track()

    def _start_projection(self, k: float, exclude: Iterable[str], backend: str, method: Any) -> None:
        self.ftp = FTP(self._named, k=k, exclude=exclude, backend=backend, method=method).attach(self)
        self._track()

    def _track(self) -> None:
        """Names and anchors of groups that are new; unlike FTP's own anchor, a partial one is fine here."""
        self.ftp.track(self._named, anchor=self._anchors)
        self._anchors.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "ftp": self.ftp, "_named": self._named, "_anchors": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "ftp" in state:  # a copy or an unpickled optimizer; load_state_dict comes here too, without it
            self.ftp.attach(self)


def _fusible(groups: list[Mapping[str, Any]]) -> bool:
    """Whether torch has one fused loop for all of these tensors."""
    given = [_as_list(group["params"], Tensor) for group in groups if isinstance(group, Mapping) and "params" in group]
    tensors = [tensor for parameters in given for tensor in parameters if isinstance(tensor, Tensor)]
    return all(t.is_floating_point() and t.device.type in ("cpu", "cuda") for t in tensors)


def _as_list(given: Any, single: type) -> list[Any]:
    return [given] if isinstance(given, single) else list(given)
