"""The summary table: its numbers, what is bold, and its forms."""

import csv
import io
import json

from rich.console import Console
from scipy import stats

from ftp_cl.study.aggregate import aggregate
from ftp_cl.study.loading import load_results
from ftp_cl.study.significance import difference_holds
from ftp_cl.study.tables import MEASURES, csv_text, latex, markdown, summary_table, terminal_table
from ftp_cl.study.write import write_report


def table_of(root):
    return summary_table(aggregate(load_results([root])))


def bold_labels(table, key="average_accuracy"):
    column = [measure.key for measure in MEASURES].index(key)
    return [label for label, cells, _ in table.rows if cells[column].best]


def write_accuracies(root, make_run, **accuracy_by_method):
    """One run per method and seed whose one accuracy is given."""
    for method, accuracies in accuracy_by_method.items():
        for seed, accuracy in enumerate(accuracies):
            directory = make_run(root / f"{method}-{seed}", method=method, seed=seed, experiences=1, ood=())
            content = json.loads((directory / "result.json").read_text())
            content["accuracy_matrix"] = [[accuracy]]
            for key in ("average_accuracy", "average_incremental_accuracy", "learning_accuracy"):
                content[key] = accuracy
            (directory / "result.json").write_text(json.dumps(content))


def test_a_difference_holds_where_scipys_paired_test_rejects_at_five_percent():
    for first, second in [([70, 72, 74], [69, 70.5, 73.5]), ([70, 72, 74], [69, 71, 71]), ([1, 2], [0, 1.2])]:
        holds = difference_holds(dict(enumerate(first)), dict(enumerate(second)))
        assert holds == (stats.ttest_rel(first, second).pvalue < 0.05)


def test_only_common_seeds_count():
    assert not difference_holds({0: 90.0, 1: 91.0}, {1: 50.0, 2: 51.0})
    assert not difference_holds({0: 90.0}, {0: 50.0})
    assert difference_holds({0: 90.0, 1: 91.0, 2: 92.0, 7: 0.0}, {0: 50.0, 1: 51.5, 2: 52.0, 8: 99.0})


def test_a_lead_that_holds_on_the_common_seeds_is_bold(tmp_path, make_run):
    write_accuracies(tmp_path, make_run, ftp=[80, 85, 90], naive=[70, 75.5, 79.5])
    assert bold_labels(table_of(tmp_path)) == ["ftp"]


def test_a_lead_within_the_spread_of_the_difference_is_not_bold(tmp_path, make_run):
    write_accuracies(tmp_path, make_run, ftp=[80, 85, 90], naive=[79, 88, 84])
    assert bold_labels(table_of(tmp_path)) == []


def test_a_lead_over_a_runner_up_with_one_seed_is_not_bold_and_the_table_says_why(tmp_path, make_run):
    write_accuracies(tmp_path, make_run, ftp=[80, 85, 90], naive=[70])
    table = table_of(tmp_path)
    assert bold_labels(table) == []
    assert any("One seed shows no spread" in note for note in table.notes)


def test_lower_is_better_for_forgetting(runs):
    assert bold_labels(table_of(runs), "average_forgetting") == ["ftp"]


def test_equal_values_are_not_bold(tmp_path, make_run):
    write_accuracies(tmp_path, make_run, ftp=[80, 85], naive=[80, 85])
    assert bold_labels(table_of(tmp_path)) == []


def test_times_from_different_machines_are_never_bold_and_the_table_says_so(tmp_path, make_run):
    for seed in range(3):
        make_run(tmp_path / f"a{seed}", method="fast", seed=seed, train_seconds=1.0 + seed)
        make_run(tmp_path / f"b{seed}", method="slow", seed=seed, train_seconds=9.0 + seed)
    assert bold_labels(table_of(tmp_path), "train_seconds") == ["fast"]
    make_run(tmp_path / "c", method="slow", seed=3, environment={"platform": "Linux", "cpu": "another", "threads": 2})
    table = table_of(tmp_path)
    assert bold_labels(table, "train_seconds") == []
    assert any("different machines" in note for note in table.notes)


def test_missing_numbers_are_a_dash(tmp_path, make_run):
    make_run(tmp_path, experiences=1, ood=(), step_seconds_median=None)
    ((_, cells, n),) = table_of(tmp_path).rows
    texts = dict(zip([measure.key for measure in MEASURES], [cell.text for cell in cells], strict=True))
    dashes = {key for key, text in texts.items() if text == "–"}  # noqa: RUF001
    assert dashes == {
        "average_forgetting",
        "backward_transfer",
        "ood_average",
        "relative_robustness",
        "step_milliseconds",
    }
    assert n == 1


def test_the_notes_are_about_what_the_table_shows(tmp_path, make_run):
    make_run(tmp_path / "a", experiences=1, ood=())
    (note,) = table_of(tmp_path / "a").notes
    assert note.startswith("One seed shows no spread")
    make_run(tmp_path / "b")
    assert [note.split()[0] for note in table_of(tmp_path / "b").notes] == ["Forgetting", "OOD", "One"]
    narrow, wide = (str(terminal_table(load_results([tmp_path / "b"]), width=width).caption) for width in (60, 200))
    assert "OOD / ID" in wide and "OOD / ID" not in narrow and "Forgetting" in narrow


def test_a_number_that_some_seeds_lack_tells_its_own_n(tmp_path, make_run):
    make_run(tmp_path / "a", seed=0)
    make_run(tmp_path / "b", seed=1, ood=())
    ((_, cells, _),) = table_of(tmp_path).rows
    assert any(cell.text.endswith("(n = 1)") for cell in cells)


def test_markdown_shows_names_as_they_are(tmp_path, make_run):
    make_run(tmp_path, method="a|b <b>*x*</b> ü")
    text = markdown(table_of(tmp_path))
    assert r"| a\|b &lt;b&gt;\*x\*&lt;/b&gt; ü |" in text
    heads = text.splitlines()[0].replace(r"\|", "").count("|")
    assert all(line.replace(r"\|", "").count("|") == heads for line in text.splitlines() if line.startswith("|"))


def test_csv_has_unrounded_means_deviations_and_numbers(runs):
    groups = aggregate(load_results([runs]))
    rows = list(csv.DictReader(io.StringIO(csv_text(groups))))
    assert [row["label"] for row in rows] == ["ftp", "ewc", "naive"]
    spread = groups[0].spread(lambda run: run.average_accuracy)
    assert float(rows[0]["average_accuracy_mean"]) == spread.mean
    assert float(rows[0]["average_accuracy_std"]) == spread.std
    assert rows[0]["average_accuracy_n"] == "3"


def test_terminal_table_shows_all_columns_where_they_fit_and_the_main_ones_elsewhere(runs):
    results = load_results([runs])
    assert len(terminal_table(results, width=200).columns) == 2 + len(MEASURES)
    narrow = terminal_table(results, width=80)
    assert [column.header.split("\n")[0] for column in narrow.columns] == [
        "method",
        *["average", "OOD", "forgetting", "train"],
        "n",
    ]


def test_terminal_table_does_not_read_names_as_markup(tmp_path, make_run):
    make_run(tmp_path, method="[red]x[/red]")
    console = Console(width=120, file=io.StringIO())
    console.print(terminal_table(load_results([tmp_path]), width=120))
    assert "[red]x[/red]" in console.file.getvalue()


def test_latex_compiles_what_names_hold(tmp_path, make_run):
    for seed in range(3):
        make_run(tmp_path / f"a{seed}", method="50%_of {x} & $y$\\z", seed=seed, loss=2)
        make_run(tmp_path / f"b{seed}", method="naive", seed=seed, loss=12)
    text = latex(table_of(tmp_path))
    assert r"50\%\_of \{x\} \& \$y\$\textbackslash{}z" in text
    assert r"\textbf{" in text and r"$\pm$" in text and r"accuracy (\%)" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1


def test_means_over_other_seeds_make_no_row_bold_that_is_behind_on_the_common_ones(tmp_path, make_run):
    write_accuracies(tmp_path, make_run, ours=[50, 51, 52, 90, 91], rival=[60, 61.5, 62], third=[45, 46, 47, 87, 87.5])
    assert bold_labels(table_of(tmp_path)) == []  # over the third the lead holds, but the rival is 10 ahead
    ours, rival = {0: 50, 1: 51, 2: 52}, {0: 60, 1: 61.5, 2: 62}
    assert not difference_holds(ours, rival) and difference_holds(rival, ours)


def test_a_lead_below_the_rounding_of_stored_numbers_is_not_bold():
    assert not difference_holds({0: 50 + 2e-7, 1: 60 + 2e-7, 2: 70 + 2e-7}, {0: 50, 1: 60, 2: 70})


def test_a_row_with_a_run_that_diverged_is_marked(tmp_path, make_run):
    tensor = {"radius": None, "mean_distance": 0.1, "max_distance": None, "boundary_share": 1.0}
    make_run(tmp_path / "a", method="ftp", diverged=True, projection={"w": tensor})
    make_run(tmp_path / "b", method="naive")
    table = table_of(tmp_path)
    assert sorted(label for label, *_ in table.rows) == ["ftp †", "naive"]
    assert any(note.startswith("† A run diverged") for note in table.notes)
    events = [{"event": "projection", "experience": 0, "tensors": {"w": {"radius": r, "mean_distance": 1.0}}}
              for r in (float("inf"), None)]  # fmt: skip
    (tmp_path / "a" / "metrics.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert "ftp †" in write_report([tmp_path], tmp_path / "out").html.read_text()


def test_columns_are_called_by_what_was_measured_and_other_metrics_have_a_table_of_their_own(tmp_path, make_run):
    for metric in ("mean_iou", "within_11.25"):
        make_run(tmp_path / metric, metric=metric, config={"target": metric})
    paths = write_report([tmp_path], tmp_path / "report", figures="svg")
    text = paths.markdown.read_text()
    heads = [line for line in text.splitlines() if line.startswith("| method")]
    for head, name in zip(heads, ("mean IoU", "share within 11.25°"), strict=True):
        assert f"| {name} (%) |" in head and f"| OOD {name} (%) |" in head
    assert "ccuracy" not in text
    page = paths.html.read_text()
    assert "OOD mean IoU per stream" in page and "<h2>emoji_domains, mean_iou</h2>" in page


def test_corruptions_have_a_mean_error_relative_to_the_best_plain_fine_tuning(tmp_path, make_run):
    streams = ("ood_fog_1", "ood_fog_5", "ood_contrast_5")
    shares = {"naive": (60, 20, 50), "ftp": (70, 50, 25)}
    for method, values in shares.items():
        for seed in range(2):
            directory = make_run(tmp_path / f"{method}{seed}", method=method, seed=seed, ood=streams)
            content = json.loads((directory / "result.json").read_text())
            content["ood"] = dict(zip(streams, (value + seed for value in values), strict=True))
            content["ood_average"] = sum(content["ood"].values()) / 3
            (directory / "result.json").write_text(json.dumps(content))
    table = table_of(tmp_path)
    assert table.titles[-1] == "mean corruption error (%), naive = 100"
    fog, contrast = 39.5 + 79.5, 49.5
    expected = [100 * ((30 + 50 - 2 * seed) / fog + (75 - seed) / contrast) / 2 for seed in range(2)]
    cells = {label: own[-1].text for label, own, _ in table.rows}
    assert cells["ftp"].startswith(f"{sum(expected) / 2:.1f} ±") and cells["naive"].startswith("100.0 ±")
    assert "naive = 100" in write_report([tmp_path], tmp_path / "report").html.read_text()
    make_run(tmp_path / "naive2", method="naive", seed=2, ood=streams[:2])
    cells = {label: own[-1].text for label, own, _ in table_of(tmp_path).rows}
    assert cells["naive"].endswith("(n = 2)"), "a run on fewer corruptions takes no part"
