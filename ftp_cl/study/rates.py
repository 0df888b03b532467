"""The curve over the learning rate of the backbone: how wide a method's good range is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ftp_cl.runs.files import replace_files
from ftp_cl.study.loading import Result
from ftp_cl.study.style import add_legend, draw_line, drawing, file_bytes, handle, label_powers, looks, new_figure

_NEAR = 2.0  # points
_PANELS = (("average accuracy (%)", "average_accuracy"), ("OOD average (%)", "ood_average"))


@dataclass(frozen=True)
class Curve:
    """One measure of one method, over the rates.

    Attributes:
        rates: ascending.
        means, deviations: percent, over the seeds; a deviation of one seed is 0.
    """

    rates: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def area(self) -> float:
        """Mean of the curve over the logarithm of the rate, by the trapezoidal rule, percent."""
        if len(self.rates) == 1:
            return self.means[0]
        at = np.log10(self.rates)
        return float(np.trapezoid(self.means, at) / (at[-1] - at[0]))

    @property
    def width(self) -> float:
        """Decades of the rate around the best one in which the mean stays within 2 points of the best."""
        near = np.array(self.means) >= max(self.means) - _NEAR
        best = first = last = int(np.argmax(self.means))
        while first > 0 and near[first - 1]:
            first -= 1
        while last + 1 < len(near) and near[last + 1]:
            last += 1
        assert first <= best <= last
        return float(np.log10(self.rates[last] / self.rates[first]))


def write_rates(found: Mapping[str, Sequence[Result]], figure: Path) -> str:
    """Draw accuracy and OOD average against the rate, and describe the curves.

    Args:
        found: at least one result of each curve, by its name; they differ in `optimizer.backbone_lr` and seed.
        figure: path of the .svg to write.

    Returns:
        A Markdown table: best mean, area under the curve and width of each method and measure.

    Raises:
        OSError: the figure cannot be written.
    """
    lines = [
        "| curve | measure | best | at rate | mean over the curve | decades within 2 points of the best |",
        "|---|---|---|---|---|---|",
    ]
    with drawing():
        drawn, axes = new_figure(7.2, 3.2, len(_PANELS))
        for panel, (title, key) in zip(axes, _PANELS, strict=True):
            curves = _curves(found, key)
            _draw(panel, curves, title)
            for method, curve in curves.items():
                best = int(np.argmax(curve.means))
                cells = [method, title, f"{curve.means[best]:.1f}", f"{curve.rates[best]:g}"]
                lines.append(f"| {' | '.join([*cells, f'{curve.area:.1f}', f'{curve.width:.1f}'])} |")
        add_legend(drawn, [handle(look) for look in looks(len(found))], list(found))
        replace_files({figure: file_bytes(drawn, ".svg")})
    return "\n".join(lines) + "\n"


def _curves(found: Mapping[str, Sequence[Result]], key: str) -> dict[str, Curve]:
    curves = {}
    for name, results in found.items():
        values: dict[float, list[float]] = defaultdict(list)
        for result in results:
            values[float(result.config["optimizer"]["backbone_lr"])].append(getattr(result, key))
        rates = tuple(sorted(values))
        deviations = [float(np.std(values[rate], ddof=1)) if len(values[rate]) > 1 else 0.0 for rate in rates]
        curves[name] = Curve(rates, tuple(float(np.mean(values[rate])) for rate in rates), tuple(deviations))
    return curves


def _draw(axes: Axes, curves: dict[str, Curve], title: str) -> None:
    for curve, look in zip(curves.values(), looks(len(curves)), strict=True):
        means, deviations = np.array(curve.means), np.array(curve.deviations)
        draw_line(axes, curve.rates, means, look, (means - deviations, means + deviations))
    axes.set(xscale="log", xlabel="learning rate of the backbone", ylabel=title, ylim=(0, None))
    rates = [rate for curve in curves.values() for rate in curve.rates]
    label_powers(axes.xaxis, min(rates), max(rates))
