"""The schema: the page that is made from it, what it takes, and that malformed input gets one sentence."""

import json
from pathlib import Path

import pytest

from ftp_cl.runs.catalogue import GROUPS, entry, options_of
from ftp_cl.runs.check import check_configuration
from ftp_cl.runs.config import load_config, load_repeated, plain
from ftp_cl.runs.directory import RunDirectory
from ftp_cl.runs.records import projection_after_each_experience
from ftp_cl.runs.schema import ConfigError, Configuration, defaults, table_of_keys
from ftp_cl.runs.status import statuses
from ftp_cl.study.store import read_frame, runs_of_frame

ROOT = Path(__file__).parents[2]
HUGE = "1" + 400 * "0"


def test_the_page_is_what_its_command_writes():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert table_of_keys() in page, "python tools/update_readme.py --configuration"


def test_the_schema_has_the_keys_of_the_defaults():
    assert {*Configuration.model_fields} == {*defaults(), *GROUPS}
    for section in ("train", "optimizer", "labels", "eval", "checkpoint"):
        assert {*Configuration.model_fields[section].annotation.model_fields} == {*defaults()[section]}


@pytest.mark.parametrize("group", GROUPS)
def test_the_defaults_of_every_choice_are_of_the_kinds_that_it_takes(group):
    defaults_of = {masks: plain(load_config(["benchmark=emoji_scenes"] if masks else [])) for masks in (False, True)}
    for name in options_of(group):
        choice = entry(group, name)
        keys = {**choice.keys, **(choice.extra_keys or {})}
        own = {**keys, "name": "my_parts:mine"} if keys["name"] == "???" else keys
        check_configuration({**defaults_of[choice.masks], group: own})


@pytest.mark.parametrize("plan", sorted(path.parent.name for path in ROOT.glob("results/*/runs.parquet")))
def test_stored_results_repeat(tmp_path, plan):
    stored = runs_of_frame(read_frame(ROOT / "results" / plan / "runs.parquet"))
    for run in {run["method"]: run for run in stored}.values():
        (tmp_path / "result.json").write_text(json.dumps({"config": run["config"]}))
        config = load_repeated(tmp_path / "result.json", ["out=again"])
        assert (config.method.name, config.seed, config.out) == (run["method"], run["seed"], "again")


@pytest.mark.parametrize("value", ["a: b", "%x"])
def test_a_value_that_is_no_yaml_is_text(tmp_path, value):
    config = load_config([f"label={value}"])
    assert config.label == value
    (tmp_path / "result.json").write_text(json.dumps({"config": plain(config)}))
    assert load_repeated(tmp_path / "result.json", [f"label={value}"]).label == value


@pytest.mark.parametrize(
    "word",
    [
        *("optimizer.lr=1e300", f"optimizer.lr={HUGE}", f"seed={HUGE}", "train.epochs=2147483648", "method.mu=1e300"),
        *("label=\x00", "label='", "label=[", "label=" + 500 * "[" + 500 * "]", "label=${", "label=${..}", "label=???"),
        *(
            "label={1: 2}",
            "train={1: 2}",
            "seed=[0]",
            "train.softmax=[full]",
            "plugins={}",
            "plugins=[{1: 2}]",
            "=",
            "+",
        ),
        *("+benchmark.seed=3", "+benchmark.validation_fraction=x", "benchmark.validation_fraction=x", "+=x"),
        *("labels.unlabelled={seed: 3}", "labels.unlabelled={sizes: 3}", "labels.unlabelled={size: x}"),
        *("+experiment=[{}]", "+" + ".".join(500 * "a") + "=1", "+train.1=1", "+seed.x=1", "method.anchor=[previous]"),
    ],
)
def test_a_malformed_override_gets_one_sentence(refused, word):
    assert len(refused("run", "--cfg", "job", word)) < 2000


@pytest.mark.parametrize("word", [f"optimizer.lr={HUGE}", "label='", "label=${", "plugins={}", "label=" + 500 * "["])
def test_an_override_of_a_result_is_read_like_any_other(tmp_path, word):
    (tmp_path / "result.json").write_text(json.dumps({"config": plain(load_config([]))}))
    with pytest.raises(ConfigError, match=r"is wrong: it must be|cannot be read|cannot be resolved"):
        load_repeated(tmp_path / "result.json", [word])


def test_the_seed_of_a_benchmark_is_that_of_the_run(refused):
    own = ["benchmark=own", "benchmark.name=my_parts:my_benchmark"]
    assert "benchmark.seed is refused" in refused("run", "--cfg", "job", *own, "+benchmark.seed=3")


@pytest.mark.parametrize(
    "config",
    [
        *("null", "5", "[]", "{}", "Infinity", "1" * 6000, 5000 * "[" + 5000 * "]", '{"model": {"": 1}}'),
        *(f'{{"seed": {HUGE}}}', f'{{"optimizer": {{"lr": {HUGE}}}}}', '{"train": {"epochs": [1]}}', '{"a\\n": 1}'),
        '{"label": ' + 900 * "[" + 900 * "]" + "}",
    ],
)
def test_a_malformed_configuration_of_a_result_gets_one_sentence(tmp_path, config):
    (tmp_path / "result.json").write_text(f'{{"config": {config}}}')
    with pytest.raises(ConfigError, match=r"result\.json holds no configuration of a run \(.*\)\.$"):
        load_repeated(tmp_path / "result.json", [])


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "? [1]\n: 2", "1: 2\nnull: 3", "a: !!int x", "[" * 3000, "a: " + "1" * 6000]
)
def test_a_damaged_config_yaml_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml is not a run's|it differs in"):
        RunDirectory(tmp_path, load_config([])).check()
    assert list(statuses(tmp_path)) == []


@pytest.mark.parametrize("number", ["Infinity", "NaN", "-1", "1e999", HUGE, "null", '"0"', "[0]", "0.5", "1" * 6000])
def test_events_whose_numbers_are_none_are_passed_over(tmp_path, number):
    events = [
        '{"event": "projection", "experience": 0, "tensors": {"w": {"radius": 1.0}}}',
        '{"event": "eval", "experience": 0, "stream": "test", "accuracy": [90]}',
    ]
    damaged = [event.replace('"experience": 0', f'"experience": {number}') for event in events]
    (tmp_path / "metrics.jsonl").write_text("\n".join(events + damaged + [1000 * "["]))
    (tmp_path / "error.json").write_text("{}")
    (tmp_path / "result.json").write_text("{}")
    assert projection_after_each_experience(tmp_path, "radius") == [{"w": 1.0}]
    assert [status.latest for status in statuses(tmp_path)] == ["experience 1: 90.0 % on test"]


def test_a_configuration_knows_nothing_of_those_before_it():
    """What a command line chooses is composed once, and each configuration of it gets a copy."""
    first = load_config(["train.epochs=7", "method.k=0.5"])
    first.method.mu = 9.0
    second = load_config([])
    assert (second.train.epochs, second.method.k, second.method.mu) == (10, 1.0, 0.01)
