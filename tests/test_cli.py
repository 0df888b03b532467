"""The command line: what it prints, and that mistakes get one sentence and exit status 2."""

import json

import pytest

QUICK = [
    *("benchmark=split_digits", "benchmark.n_experiences=2", "model=small_cnn"),
    *("train.epochs=1", "train.batch_size=64", "threads=1"),
]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("method=ftpp", "did you mean ftp?"),
        ("benchmark=split_emojis", "did you mean split_emoji?"),
        ("model=eficientnet_lite0", "did you mean efficientnet_lite0?"),
        ("train.epoch=3", "did you mean train.epochs?"),
        ("epochs=3", "did you mean train.epochs?"),
        ("optimizer.learning_rate=1", "optimizer.lr"),
        ("train.epochs=0", "train.epochs=0 is wrong: it must be a whole number of at least 1"),
        ("train.epochs=many", "train.epochs=many is wrong"),
        ("optimizer.lr=-1", "must be a number above 0"),
        ("train.softmax=none", "separated or full"),
        ("seed=-1", "seed=-1"),
        ("seed=true", "seed=True"),
        ("method.k=2", "k=2"),
        ("method.anchor=previos", "'previos'"),
        ("+method.anchors=2", "method.anchors is no key of method=ftp; did you mean method.anchor?"),
        ("benchmark.n_experiences=3", "3"),
        ("benchmark.train_domains=[notto]", "noto"),
        ("benchmark.ood_domains=[noto]", "noto"),
        ("benchmark.shots=1000", "1000"),
        ("model.head=cosin", "cosine"),
        ("device=tpu", "device=tpu"),
        ("device=meta", "device=meta cannot be used here"),
        ("method.anchor_device=gpu", "anchor_device='gpu' is no device"),
        ("method.exclude=[3]", "method cannot be built: exclude takes names"),
        ("label=a(b", "label=a(b cannot be read: quote what has special characters, as in \"label='a(b'\""),
        ("optimizer.lr=[1,2", "no viable alternative"),
        ("device=0", "device=0 is wrong: it must be auto, cpu, cuda or"),
        ("nonsense", "key=value"),
        ("+train.epoch=3", "train.epoch is no key of the configuration; did you mean train.epochs?"),
        ("+colour=red", "colour is no key of the configuration; there are checkpoint, compile, deterministic"),
        ("optimizer.lr=inf", "optimizer.lr=inf is wrong"),
        ("threads=100000", "threads=100000 is wrong"),
        ("train.batch_size=99999999999999999999", "at least 1"),
        ("out=5", "out=5 is wrong: it must be a path"),
        ("label=[a]", "label=['a'] is wrong: it must be text"),
        ("labels=4", "labels=4 is wrong: it must have keys of its own"),
        ("labels.unlabelled=4", "labels.unlabelled=4 is wrong: it must be null, or keys of the benchmark"),
        ("plugins=[{name: 5}]", "must be a list such as"),
        ("~method", "method=None is wrong"),
        ("method.name=ftpp", "method.name=ftpp is unknown; did you mean ftp?"),
        ("method.k=much", "method.k=much is wrong: it must be a number"),
        ("method.k=null", "method.k=None is wrong: it must be a number"),
        ("method.mu=nan", "method.mu=nan is wrong: it must be a number of at least 0"),
        ("method.radius_iterations=-1", "at least 0"),
        ("method.anchor=5", "method.anchor=5 is wrong: it must be text"),
        ("benchmark.n_experiences=2.0", "must be null, a whole number"),
        ("benchmark.shots=few", "benchmark.shots=few is wrong: it must be null or a whole number"),
        ("seed=1,2", "seed=1,2 has several values: ftp-cl run -m runs each of them"),
        ("method=ftp,naive", "method=ftp,naive has several values"),
        ("hydra/launcher=joblib", "for many runs"),
        ("+experiment=few_labels_robust_5", "did you mean few_labels_robust_"),
        ("experiment=few_labels_robust_4", "+experiment=few_labels_robust_4"),
        ("train.epochs=${epochs}", "'epochs' not found"),
    ],
)
def test_a_wrong_word_is_named_with_what_would_be_right(refused, tmp_path, word, told):
    assert told in refused("run", "out=run", word)
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_missing_weight_file_is_named(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    error = refused("run", "model=timm", "model.architecture=resnet18", "model.weights=nowhere.safetensors")
    assert "nowhere.safetensors" in error
    error = refused("run", "model=timm", "model.architecture=resnet18")
    assert f"not in the cache ({tmp_path}/models--timm--resnet18" in error and "model.weights=path" in error


def test_a_finished_run_is_kept_and_another_configuration_refused(ftp_cl, refused, tmp_path):
    assert ftp_cl("run", *QUICK, "out=run")[0] == 0
    before = (tmp_path / "run" / "result.json").read_bytes()
    status, printed, _ = ftp_cl("run", *QUICK, "out=run")
    assert status == 0 and "nothing to do" in printed
    assert "differs in seed" in refused("run", *QUICK, "seed=1", "out=run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    status, printed, _ = ftp_cl("run", *QUICK, "out=run", "save_weights=true")
    assert status == 0 and "Weights are kept when a run ends, and were not" in " ".join(printed.split())
    assert ftp_cl("run", *QUICK, "out=other", "save_weights=true")[0] == 0
    assert ftp_cl("run", *QUICK, "out=other", "save_weights=true")[0] == 0
    assert (tmp_path / "other" / "weights.safetensors").exists()


def test_a_directory_of_something_else_is_not_touched(refused, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    assert "photos" in refused("run", *QUICK, "out=photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_an_unfinished_run_starts_again(ftp_cl, tmp_path):
    assert ftp_cl("run", *QUICK, "out=run")[0] == 0
    whole = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "result.json").unlink()
    assert ftp_cl("run", *QUICK, "out=run")[0] == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["accuracy_matrix"] == whole["accuracy_matrix"]
    events = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum('"eval"' in line and '"test"' in line for line in events) == 2


def test_many_runs_go_to_directories_of_their_own_and_into_one_report(ftp_cl, tmp_path):
    status, _, error = ftp_cl("run", "-m", *QUICK, "method=naive,ftp")
    assert status == 0, error
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2
    status, printed, error = ftp_cl("report", "runs", "--out", "report")
    assert status == 0, error
    assert "naive" in printed and "ftp" in printed
    for name in ("report.html", "report.md", "report.csv"):
        assert (tmp_path / "report" / name).stat().st_size > 0


def test_a_damaged_result_is_left_out_by_name_and_alone_leaves_the_old_report(ftp_cl, refused, tmp_path):
    assert ftp_cl("run", *QUICK, "out=runs/a")[0] == 0
    assert ftp_cl("report", "runs", "--out", "report")[0] == 0
    before = (tmp_path / "report" / "report.html").read_bytes()
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "result.json").write_text('{"schema": "ftp_cl.result/1", "bench')
    status, _, error = ftp_cl("report", "runs", "--out", "other")
    assert status == 0 and "left out: " in error and "result.json" in error
    assert "result.json" in refused("report", "runs/b", "--out", "report")
    assert (tmp_path / "report" / "report.html").read_bytes() == before
    assert "nowhere" in refused("report", "nowhere")


def test_list_names_everything_with_a_line_on_it(ftp_cl):
    status, printed, _ = ftp_cl("list")
    assert status == 0
    for word in ("split_emoji", "split_digits", "replay", "slda", "efficientnet_lite0", "timm"):
        (line,) = (line for line in printed.splitlines() if line.split()[:1] == [word])
        assert len(line.split()) > 3


def test_cfg_prints_the_resolved_configuration(ftp_cl):
    status, printed, _ = ftp_cl("run", "--cfg", "job", "method=naive", "train.epochs=7")
    assert status == 0 and "epochs: 7" in printed and "name: naive" in printed


def test_a_sweep_is_not_started_when_its_configuration_was_to_be_printed(refused, tmp_path):
    assert "--cfg" in refused("run", "-m", "--cfg", "job", *QUICK, "seed=0,1")
    assert not (tmp_path / "runs").exists()


def test_wrong_keys_are_found_before_anything_is_loaded(refused, monkeypatch):
    from ftp_cl.runs import run

    monkeypatch.setattr(run, "benchmark_of", lambda config: pytest.fail("loaded"))
    for word in ("method.k=much", "benchmark.n_experiences=two", "model.head=5", "+train.epoch=3", "optimizer.lr=0"):
        refused("run", *QUICK, word)


def test_debug_shows_the_traceback(ftp_cl):
    with pytest.raises(ValueError, match="ftpp"):
        ftp_cl("run", "--debug", "method=ftpp")
