"""Figures, in the page and as files: what they show, and that the same results give the same bytes."""

import json

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex

from ftp_cl.study.heatmap import matrix_svg
from ftp_cl.study.loading import ReportError, load_results
from ftp_cl.study.ood_figures import _ood_rows
from ftp_cl.study.style import short_tensor_names
from ftp_cl.study.write import write_figure, write_report


def test_a_large_matrix_has_no_numbers_and_few_cells():
    matrix = np.tril(np.full((400, 400), 50.0))
    matrix[0, 0] = 100.0
    matrix[np.triu_indices(400, 1)] = np.nan
    svg = matrix_svg(matrix)
    first = to_hex(colormaps["cividis"]((14 * 50 + 100) / 15 / 100))  # mean of the known 15 of its 25 entries
    assert svg.count("<rect") == 80 * 81 // 2  # 5 x 5 experiences share a cell; those above the diagonal are empty
    assert svg.count("<text") == 2 * 10 + 2  # of the axes
    assert svg.count(first) == 1
    assert matrix_svg(matrix[:40, :40]).count("<text") > 40 * 41 // 2


def test_figures_of_benchmarks_whose_names_look_alike_are_files_of_their_own(tmp_path, make_run):
    long = "x" * 300
    for i, name in enumerate(("a/b", "a b", "A_B", long, f"{long}y", "../..")):
        make_run(tmp_path / "runs" / str(i), benchmark=name, experiences=1, ood=())
    figures = write_report([tmp_path / "runs"], tmp_path / "out", "svg").figures
    assert len({str(path).casefold() for path in figures}) == 12
    assert {path.parent for path in figures} == {tmp_path / "out" / "figures"}
    assert all(path.exists() for path in figures)


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_main_figure_as_a_file(runs, tmp_path, suffix, start):
    results = load_results([runs])
    path = write_figure(results, tmp_path / f"main{suffix}")
    content = path.read_bytes()
    assert content.startswith(start)
    assert write_figure(results, tmp_path / f"again{suffix}").read_bytes() == content


def test_main_figure_without_ood_has_one_panel(tmp_path, make_run):
    results = load_results([make_run(tmp_path, ood=())])
    assert write_figure(results, tmp_path / "main.svg").stat().st_size > 0


def test_main_figure_refuses_other_endings_and_several_benchmarks(tmp_path, make_run):
    make_run(tmp_path / "a", benchmark="one")
    make_run(tmp_path / "b", benchmark="two")
    results = load_results([tmp_path])
    with pytest.raises(ReportError, match=r"written as \.svg or \.png"):
        write_figure(results, tmp_path / "main.pdf")
    with pytest.raises(ReportError, match="one benchmark, but the results have"):
        write_figure(results, tmp_path / "main.svg")


def test_the_users_matplotlib_settings_change_nothing(runs, tmp_path):
    import matplotlib

    results = load_results([runs])
    plain = write_figure(results, tmp_path / "plain.svg").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.grid": False, "lines.linewidth": 9}):
        assert write_figure(results, tmp_path / "styled.svg").read_bytes() == plain


@pytest.mark.parametrize(("kind", "tensors"), [("svg", ["w"]), ("png", [])])
def test_each_figure_of_the_page_can_be_a_file(make_run, tmp_path, kind, tensors):
    page = write_report([make_run(tmp_path / "run", experiences=2, tensors=tensors)], tmp_path / "out", kind)
    names = {path.name for path in page.figures}
    assert f"emoji_domains-cost.{kind}" in names and f"emoji_domains-id-ood.{kind}" in names
    assert all(path.stat().st_size > 1000 for path in page.figures)
    assert len(names) == page.html.read_text().count("<figcaption>")


def test_a_corruption_is_one_row_of_the_ood_figure_and_a_style_another(tmp_path, make_run):
    streams = ("ood_fluent_3d", "ood_fog_1", "ood_fog_5", "ood_line_art", "ood_snow_3")
    make_run(tmp_path, ood=streams)
    assert _ood_rows(load_results([tmp_path])) == {
        "fluent_3d": ["ood_fluent_3d"],
        "fog": ["ood_fog_1", "ood_fog_5"],
        "line_art": ["ood_line_art"],
        "snow_3": ["ood_snow_3"],
    }


def test_tensors_keep_the_part_of_their_name_that_tells_them_apart():
    names = [f"backbone.blocks.{i}.0.conv_pw.weight" for i in range(3)]
    assert short_tensor_names([*names, "backbone.conv_stem.weight"]) == [
        *(f"blocks.{i}.0.conv_pw" for i in range(3)),
        "conv_stem",
    ]
    assert short_tensor_names(["w"]) == ["w"]


@pytest.mark.parametrize("tensors", [["w"], [f"layers.{i}.weight" for i in range(70)]])
def test_layers_over_time_show_a_tensor_that_appears_late(tmp_path, make_run, tensors):
    run = make_run(tmp_path / "run", tensors=tensors)
    make_run(tmp_path / "short", tensors=tensors, seed=1)
    values = {"radius": 0.0, "mean_distance": 1.5, "max_distance": 2.0, "boundary_share": 0.5}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "projection", "experience": 3, "tensors": {"late": values}}) + "\n")
    page = write_report([tmp_path], tmp_path / "out").html.read_text()
    assert "mean distance" in page and "row-wise L1 norm (weight units)" in page


def test_corruptions_are_drawn_over_their_severity(tmp_path, make_run):
    streams = tuple(f"ood_{name}_{severity}" for name in ("fog", "jpeg_compression") for severity in (1, 3, 5))
    make_run(tmp_path / "run", ood=streams)
    make_run(tmp_path / "styles", method="ftp")
    page = write_report([tmp_path / "run", tmp_path / "styles"], tmp_path).html.read_text()
    assert "Accuracy over the severity of corruptions" in page
    page = write_report([tmp_path / "styles"], tmp_path).html.read_text()
    assert "Accuracy over the severity of corruptions" not in page
