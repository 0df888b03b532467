"""The figures of runs with few labels: what they choose and what they draw."""

import pytest

from ftp_cl.study.aggregate import aggregate
from ftp_cl.study.figures import with_pseudo_labels
from ftp_cl.study.label_figures import labels_figure, pseudo_labels_figure, with_label_budgets
from ftp_cl.study.loading import ReportError, load_results
from ftp_cl.study.style import looks


@pytest.fixture
def groups(make_run, tmp_path):
    for method, start in (("naive", 60.0), ("fixmatch", 80.0)):
        for budget in (2, 4, 8):
            for seed in range(2):
                config = {"labels": {"per_class": budget, "fraction": None}}
                name = f"{method}-{budget}-{seed}"
                epochs = [[10.0 * budget + seed, None if budget == 2 else 90.0]] * 3 if method == "fixmatch" else []
                make_run(
                    tmp_path / name,
                    method=method,
                    seed=seed,
                    start=start + budget,
                    config=config,
                    pseudo_labels=epochs,
                )
    return aggregate(load_results([tmp_path]))


def test_one_line_per_method_through_its_budgets(groups):
    figure = labels_figure(with_label_budgets(groups), {})
    for axes in figure.axes:
        assert [line.get_xdata().tolist() for line in axes.lines] == [[2, 4, 8]] * 2
        assert len(axes.collections) == 2, "bands"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == ["fixmatch", "naive"]
    line = figure.axes[0].lines[names.index("fixmatch")]
    expected = {
        g.settings["labels.per_class"]: g.spread(lambda r: r.average_accuracy).mean
        for g in groups
        if g.method == "fixmatch"
    }
    assert line.get_ydata().tolist() == pytest.approx([expected[n] for n in (2, 4, 8)])


def test_all_labels_are_the_share_1_but_no_number_per_class(make_run, tmp_path):
    for key, values in (("fraction", (0.1, 0.5, None)), ("per_class", (2, 4, None))):
        for method in ("naive", "ftp"):
            for value in values:
                config = {"labels": {"per_class": None, "fraction": None, key: value}}
                make_run(tmp_path / key / f"{method}-{value}", method=method, config=config)
    for key, budgets in (("fraction", [0.1, 0.5, 1]), ("per_class", [2, 4])):
        groups = aggregate(load_results([tmp_path / key]))
        figure = labels_figure(with_label_budgets(groups), {})
        assert [line.get_xdata().tolist() for line in figure.axes[0].lines] == [budgets] * 2
        assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == ["ftp", "naive"]


def test_without_budgets_there_is_no_figure(make_run, tmp_path):
    make_run(tmp_path / "a", config={"labels": {"per_class": 2, "fraction": None}})
    make_run(tmp_path / "b", method="ftp")
    groups = aggregate(load_results([tmp_path]))
    assert with_label_budgets(groups) == [] and with_pseudo_labels(groups) == []


@pytest.mark.parametrize("wrong", [[1.0], [[1.0]], [[None, 1.0]], "many"])
def test_damaged_pseudo_labels_are_refused(make_run, tmp_path, wrong):
    make_run(tmp_path, pseudo_labels=wrong)
    with pytest.raises(ReportError, match="pseudo_labels"):
        load_results([tmp_path])


def test_pseudo_labels_are_drawn_over_epochs(groups):
    chosen = with_pseudo_labels(groups)
    assert {group.method for group in chosen} == {"fixmatch"} and len(chosen) == 3
    labels = [group.label for group in chosen]
    figure = pseudo_labels_figure(chosen, dict(zip(labels, looks(3), strict=True)))
    shares = {label: line.get_ydata().tolist() for label, line in zip(labels, figure.axes[0].lines, strict=True)}
    (four,) = (label for label in labels if "=4" in label)
    assert shares[four] == pytest.approx([40.5] * 3)
    assert figure.axes[1].lines[labels.index(four)].get_ydata().tolist() == pytest.approx([90.0] * 3)
