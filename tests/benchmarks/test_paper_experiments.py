"""The paper's experiments compose, and run on small trees in the published formats."""

import csv
import json
import shlex
from pathlib import Path

import pytest
import yaml

from ftp_cl.runs.catalogue import experiment_description, names
from ftp_cl.runs.config import load_config
from ftp_cl.runs.run import run

DOCS = Path(__file__).parents[2] / "docs"
EXPERIMENTS = [name for name in names("experiment") if name.startswith("paper/")]
SMALL = ["model.weights=random", "loader.workers=null", "precision=null", "benchmark.size=32", "threads=1"]
SMALL += ["train.epochs=2", "train.batch_size=16", "device=cpu"]


def of(benchmark):
    return [name.removeprefix("paper/") for name in EXPERIMENTS if name.startswith(f"paper/{benchmark}")]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_begins_with_the_command_that_runs_it(name):
    import ftp_cl.runs.catalogue as catalogue

    lines = (catalogue.config_directory() / "experiment" / f"{name}.yaml").read_text().splitlines()
    command = shlex.split(lines[1].removeprefix("# "))
    assert command[:3] == ["ftp-cl", "run", f"+experiment={name}"]
    assert experiment_description(name).endswith(".")
    assert load_config(command[2:]).optimizer.weight_decay in (0, 5e-4)


def test_each_published_number_has_a_source_and_a_command_that_composes():
    rows = list(csv.DictReader((DOCS / "published.csv").open()))
    for row in rows:
        assert bool(row["source"]) or not row["value"], row
        assert 0 < float(row["value"] or 1) < 100
    commands = {row["command"] for row in rows if row["command"]}
    for command in commands:
        load_config(shlex.split(command)[2:])
    assert {name for name in EXPERIMENTS} == {command.split()[2].partition("=")[2] for command in commands}


def result(experiment, tmp_path, *overrides):
    directory = tmp_path / "run"
    run(load_config([f"+experiment=paper/{experiment}", *SMALL, *overrides]), directory)
    return json.loads((directory / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("experiment", of("domainnet"))
def test_domainnet_runs_by_the_lists_of_the_released_code(domainnet_tree, tmp_path, experiment):
    lists = domainnet_tree / "lists"
    lists.mkdir()
    lines = (domainnet_tree / "real_train.txt").read_text().splitlines(keepends=True)
    for part, kept in (("train", range(14)), ("val", range(14, 20))):
        for name in (f"real_{part}_split.txt", f"real_{part}_10_percent_split.txt"):
            (lists / name).write_text("".join(line for i, line in enumerate(lines) if i % 20 in kept))
    data = (f"benchmark.dataset_root={domainnet_tree}", f"benchmark.split_lists={lists}")
    found = result(experiment, tmp_path, *data, "model.architecture=test_resnet")
    assert found["data"]["stream_sizes"]["train"] == [56] and found["data"]["stream_sizes"]["validation"] == [24]
    assert set(found["ood"]) == {"ood_sketch", "ood_painting", "ood_infograph", "ood_clipart"}
    assert len(found["selected_epochs"]) == 1 and found["config"]["model"]["mean"] == [0.5964, 0.5712, 0.5336]
    projected = {name.partition(".")[0] for name in found["projection"]}
    assert projected == ({"backbone"} if found["method"] == "ftp" else set())


@pytest.mark.slow
@pytest.mark.parametrize("experiment", of("imagenet_r"))
def test_imagenet_r_runs_by_its_lists(imagenet_r_tree, tmp_path, experiment):
    wnids = sorted(path.name for path in (imagenet_r_tree / "imagenet-r").iterdir() if path.is_dir())
    for part, numbers in (("train", range(8)), ("test", (8, 9))):
        items = [(f"data/imagenet-r/{wnid}/art_{k}.jpg", t) for k in numbers for t, wnid in enumerate(wnids)]
        content = {"data": [path for path, _ in items], "targets": [target for _, target in items]}
        (tmp_path / f"imagenet-r_{part}.yaml").write_text(yaml.safe_dump(content))
    data = (f"benchmark.dataset_root={imagenet_r_tree}", f"benchmark.split_lists={tmp_path}")
    words = ("benchmark.n_experiences=2", "model.architecture=test_vit", "+model.img_size=32")
    found = result(experiment, tmp_path, *data, *words)
    assert found["data"]["stream_sizes"] == {"train": [16, 16], "test": [4, 4]}
    assert bool(found["projection"]) == (found["method"] == "ftp")
    assert all(".attn.qkv." in name for name in found["projection"]) == (experiment != "imagenet_r")


@pytest.mark.slow
def test_cifar100_runs_in_10_tasks_and_20_differ_in_nothing_else(cifar_tree, tmp_path):
    words = (f"benchmark.dataset_root={cifar_tree(per_class=1)}", "model.architecture=test_vit", "+model.img_size=32")
    found = result("cifar100_10", tmp_path, *words, "train.epochs=1")
    assert len(found["accuracy_matrix"]) == 10 and found["projection"]
    ten, twenty = (load_config([f"+experiment=paper/cifar100_{n}"]) for n in (10, 20))
    assert (ten.benchmark.n_experiences, twenty.benchmark.n_experiences) == (10, 20)
    twenty.benchmark.n_experiences = 10
    assert twenty == ten


@pytest.mark.slow
def test_imagenet_runs_with_a_part_of_its_shifted_sets(tiny_imagenet_tree, image_writer, tmp_path):
    wnids = sorted(path.name for path in (tiny_imagenet_tree / "tiny-imagenet-200" / "train").iterdir())
    for number, wnid in enumerate(wnids):
        for k in range(8):
            image_writer(tmp_path / "train" / wnid / f"{k}.JPEG", seed=10 * number + k)
        image_writer(tmp_path / "val" / wnid / "1.JPEG", seed=number)
        image_writer(tmp_path / "imagenetv2-matched-frequency-format-val" / str(number) / "1.jpeg", seed=number)
    image_writer(tmp_path / "imagenet-a" / wnids[0] / "1.jpg")
    words = (f"benchmark.dataset_root={tmp_path}", f"benchmark.ood_root={tmp_path}", "benchmark.ood_sets=[v2,a]")
    found = result("imagenet", tmp_path, *words, "model.architecture=test_vit", "+model.img_size=32")
    assert set(found["ood"]) == {"ood_v2", "ood_a"} and found["data"]["ood"]["ood_a"]["classes"] == [0]
    assert found["ood"]["ood_a"] == 100, "there is one class to choose from"
