"""The demo runs its four methods and ends in a sentence with the numbers of these runs."""

import json

import pytest

from ftp_cl.study import demo

SMALL = ["model=small_cnn", "model.in_channels=3", "benchmark.size=16", "benchmark.n_experiences=2", "train.epochs=1"]


@pytest.mark.slow
def test_last_line_says_what_the_runs_gave(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "COMMON", [*demo.COMMON, *SMALL])
    demo.demo(tmp_path)
    files = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    found = {file["config"]["label"]: file for file in files}
    assert set(found) == set(demo.RUNS)
    printed = " ".join(capsys.readouterr().out.split())
    sentence = printed[printed.index("FTP's lead in points") :]
    for label in set(demo.RUNS) - {demo.FTP}:
        lead, ood = (found[demo.FTP][key] - found[label][key] for key in ("average_accuracy", "ood_average"))
        assert f"{lead:+.1f} ({ood:+.1f}) over {label}" in sentence
    assert (tmp_path / "figure.svg").stat().st_size > 1000
