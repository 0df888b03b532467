"""Resume: a run that is killed at any moment and resumed ends with the bytes of one that was not.

One file, because all of it kills runs and compares what becomes of them in the same few ways.
"""

import contextlib
import hashlib
import io
import itertools
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from ftp_cl.runs.catalogue import options_of
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.directory import RunDirectory
from ftp_cl.runs.loop import Recorder
from ftp_cl.runs.optimizer import build_optimizer
from ftp_cl.runs.run import run
from ftp_cl.runs.termination import Termination, TimeLimitError

SHORT = [
    *(
        "benchmark=split_digits",
        "benchmark.n_experiences=2",
        "+benchmark.shots=50",
        "model=small_cnn",
        "train.epochs=2",
        "train.batch_size=32",
    ),
    *("threads=1", "save_weights=true", "checkpoint.every_iterations=3"),
]
MEASURED = ("train_seconds", "step_seconds_median", "peak_memory_mb")


@cache
def composed(*overrides: str) -> DictConfig:
    return load_config(overrides)


def start(overrides: list[str], directory: Path, resume: bool = False) -> None:
    """Run. Each configuration is composed once only: that takes as long as a run of these."""
    config = composed(*overrides).copy()
    config.resume = resume
    run(config, directory)


def outcome(directory: Path) -> tuple[bytes, dict, list]:
    """Weights, result and events without measured times."""
    result = json.loads((directory / "result.json").read_text())
    result["config"] = {key: value for key, value in result["config"].items() if key not in ("out", "resume")}
    result["environment"].pop("git_commit")  # somebody may commit between two runs
    events = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        event.pop("seconds", None)
    weights = (directory / "weights.safetensors").read_bytes()
    return weights, {key: value for key, value in result.items() if key not in MEASURED}, events


def in_child(overrides: list[str], directory: Path, number: int, wait: Callable[[], object]) -> int:
    """Run in a forked process, wait, and send it a signal. Returns the status as the system gives it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            start(overrides, directory, resume=True)
            status = 0
        except SystemExit as leaving:
            status = leaving.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    wait()
    os.kill(child, number)
    return os.waitpid(child, 0)[1]


class Killed(BaseException):
    """Stands for a process that ends."""


def killed_after(iterations: int, overrides: list[str], directory: Path, monkeypatch) -> bool:
    """Run until so many iterations are done, then stop as if killed. Returns whether it got that far."""
    from ftp_cl.runs.checkpoints import Checkpoints

    whole, done = Checkpoints.iteration_done, 0

    def iteration_done(self, *args):
        nonlocal done
        whole(self, *args)
        done += 1
        if done == iterations:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "iteration_done", iteration_done)
        try:
            start(overrides, directory, resume=True)
        except Killed:
            return True
    return False


def interrupted_every(iterations: int, overrides: list[str], directory: Path, monkeypatch) -> Path:
    """A run that is stopped and resumed again and again, until it is done."""
    for _ in range(50):
        if not killed_after(iterations, overrides, directory, monkeypatch):
            return directory
    raise AssertionError("the run does not get on")


def test_a_run_that_selects_its_epochs_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    overrides = [*SHORT, "method=ftp", "train.select=validation", "train.epochs=3", "optimizer.lr=0.3"]
    start(overrides, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    assert outcome(interrupted_every(7, overrides, tmp_path / "cut", monkeypatch)) == expected
    assert len(expected[1]["selected_epochs"]) == 2


FEW = ("benchmark.shots=26", "eval.ood_every=never")  # five iterations an epoch, in float16, which CPUs emulate
METHODS = sorted({*options_of("method")} - {"own", "mib", "ftp_mib"})  # MiB is for masks
SLOWLY = partial(pytest.param, marks=pytest.mark.slow)
QUICK_METHODS = ("digrap", "ewc", "ftp_replay", "lp_ft", "slda", "tpgm")
NEEDS_UNLABELLED = ("pseudo_label", "mean_teacher", "match")


@pytest.mark.parametrize(
    "method",
    [pytest.param(method, marks=() if method in QUICK_METHODS else pytest.mark.slow) for method in METHODS],
)
def test_every_method_learns_and_resumes_to_the_same_bytes(tmp_path, monkeypatch, method):
    epochs = 2 if "lp_ft" in method else 1  # one for the head, one for everything
    overrides = [*SHORT, f"method={method}", f"train.epochs={epochs}", "checkpoint.every_iterations=2"]
    if any(name in method for name in NEEDS_UNLABELLED):
        overrides += ["labels.per_class=20", "method.ratio=1"]
    if "ranpac" in method:
        overrides += ["method.projection_size=500"]
    if "sldc" in method:
        overrides += ["method.samples=32"]
    start(overrides, tmp_path / "whole")
    _, result, _ = expected = outcome(tmp_path / "whole")
    assert result["method"] == method and bool(result["projection"]) == ("ftp" in method)
    if "labels.per_class=20" not in overrides:
        assert result["accuracy_matrix"][0][0] > 60, "five classes: chance is 20 %"
    # The places where it is killed and those where it resumes differ, within an experience and between two.
    for iterations in (3, 5, 7):
        killed_after(iterations, overrides, tmp_path / "cut", monkeypatch)
    start(overrides, tmp_path / "cut", resume=True)
    assert outcome(tmp_path / "cut") == expected
    assert not (tmp_path / "cut" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("iterations", "options"),
    [
        (9, ["method=ftp", "method.when=experience", "method.radius_iterations=3"]),
        SLOWLY(9, ["method=ftp", "method.anchor=initial", "optimizer.fresh=false"]),
        SLOWLY(9, ["method=ftp_replay", "optimizer.name=sgd", "train.schedule=constant", "model.head=linear"]),
        (20, ["method=naive", "checkpoint.every_iterations=null", "checkpoint.every_minutes=null"]),
        SLOWLY(9, ["method=ftp_replay", "train.augmentation=weak"]),
        (9, ["method=fixmatch_ftp", "method.ratio=1", "train.augmentation=shift", "labels.per_class=20"]),
        (9, ["method=fixmatch", "method.ratio=1", "loader.workers=1", "labels.per_class=20"]),
        (7, ["method=ftp_replay", "train.augmentation=shift", "loader.workers=2", "precision=fp16-mixed", *FEW]),
    ],
    ids=[
        "projection between experiences",
        "optimizer state carried over",
        "sgd, replay",
        "between experiences only",
        "random views of images and of replayed ones",
        "random views of labelled and unlabelled images",
        "random views of unlabelled images by workers",
        "random views by workers, scaled gradients",
    ],
)
def test_settings_resume_to_the_same_bytes(tmp_path, monkeypatch, iterations, options):
    start([*SHORT, *options], tmp_path / "whole")
    interrupted_every(iterations, [*SHORT, *options], tmp_path / "cut", monkeypatch)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    overrides = [*SHORT, "method=ftp_replay", "benchmark.n_experiences=5", "checkpoint.every_iterations=4"]
    start(overrides, tmp_path / "whole")
    generator, kills, longest, reached = random.Random(0), 0, 1.0, ""
    for _ in range(200):
        seconds = generator.uniform(0.05, longest)
        status = in_child(overrides, tmp_path / "cut", signal.SIGKILL, partial(time.sleep, seconds))
        if os.WIFSIGNALED(status):
            kills += 1
            before, reached = reached, max((path.name for path in tmp_path.glob("cut/checkpoints/*.pt")), default="")
            longest *= 1.2 if reached == before else 1  # on a busy machine this may not reach the next checkpoint
        if os.WIFEXITED(status):
            longest /= 2  # and on a fast one it may take it to its end
            assert os.WEXITSTATUS(status) == 0
            assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
            if kills >= 20:
                return
            shutil.rmtree(tmp_path / "cut")  # done before 20 kills: once more
    raise AssertionError(f"{kills} kills, and not done")


def test_a_run_killed_while_it_writes_a_file_goes_on(tmp_path, monkeypatch):
    """SIGKILL leaves the half-written file beside its target: the first file of all, one later, a checkpoint."""
    overrides = [*SHORT, "method=naive", "train.epochs=1"]
    start(overrides, tmp_path / "whole")
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / ".config.yaml.12.tmp").write_text("{")
    killed_after(3, overrides, cut, monkeypatch)
    for name in (".result.json.12.tmp", "checkpoints/.000001.pt.12.tmp"):
        (cut / name).write_text("{")
    start(overrides, cut, resume=True)
    assert outcome(cut) == outcome(tmp_path / "whole")
    assert not list(cut.rglob(".result*")) and not (cut / "checkpoints").exists()


def test_a_run_killed_between_its_result_and_the_end_leaves_no_checkpoints(tmp_path, monkeypatch):
    from ftp_cl.runs.checkpoints import Checkpoints

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "clear", lambda self: None)
        start([*SHORT, "method=naive", "train.epochs=1"], tmp_path)
    assert (tmp_path / "checkpoints").exists()
    start([*SHORT, "method=naive", "train.epochs=1"], tmp_path, resume=True)
    assert not (tmp_path / "checkpoints").exists()


def test_sigterm_checkpoints_and_ends_with_status_143(tmp_path):
    overrides = [*SHORT, "method=ftp", "train.epochs=200", "checkpoint.every_iterations=null"]
    events = tmp_path / "cut" / "metrics.jsonl"

    def wait_for_an_epoch():
        while not (events.exists() and events.stat().st_size):
            time.sleep(0.05)

    status = in_child(overrides, tmp_path / "cut", signal.SIGTERM, wait_for_an_epoch)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 143
    (path,) = (tmp_path / "cut" / "checkpoints").iterdir()
    position = torch.load(path, weights_only=True)["position"]
    assert position["experience"] == 0 and position["epoch"] is not None


@pytest.mark.parametrize(
    ("hook", "position"),
    [
        ("after_training_epoch", {"experience": 0, "epoch": 1, "batch": 1}),
        ("after_training_exp", {"experience": 0, "epoch": None, "batch": 0}),
    ],
)
def test_sigterm_between_iterations_loses_nothing_either(tmp_path, monkeypatch, hook, position):
    """After an epoch or an experience methods may have minutes of work of their own."""

    def terminate(self, strategy, **kwargs):
        whole(self, strategy, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)

    whole = getattr(Recorder, hook)
    monkeypatch.setattr(Recorder, hook, terminate)
    with pytest.raises(SystemExit, match="143"):
        start([*SHORT, "method=ewc", "checkpoint.every_iterations=null"], tmp_path)
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert torch.load(path, weights_only=True)["position"] == position


@pytest.fixture
def submitits_handler():
    """Sets a handler of SIGUSR2 as submitit has it; what a function does stands for what submitit does."""
    before = signal.getsignal(signal.SIGUSR2)

    def install(function):
        function.__module__ = "submitit.core.job_environment"
        signal.signal(signal.SIGUSR2, function)

    yield install
    signal.signal(signal.SIGUSR2, before)


@pytest.fixture
def with_signals(monkeypatch):
    """Sends signals to this process in the midst of the first iteration."""

    def send(*numbers):
        def iterate(self, strategy, **kwargs):
            whole(self, strategy, **kwargs)
            monkeypatch.setattr(Recorder, "before_training_iteration", whole)
            for number in numbers:
                os.kill(os.getpid(), number)

        whole = Recorder.before_training_iteration
        monkeypatch.setattr(Recorder, "before_training_iteration", iterate)

    return send


LONG = [*SHORT, "method=naive", "checkpoint.every_iterations=null"]


def test_submitit_is_asked_to_requeue_the_job_after_the_checkpoint(tmp_path, submitits_handler, with_signals):
    found = []

    def requeue(number, frame):
        found.extend((tmp_path / "checkpoints").iterdir())
        os.kill(os.getpid(), signal.SIGTERM)  # that of the time limit comes too late to stop it
        sys.exit(-1)

    submitits_handler(requeue)
    with_signals(signal.SIGUSR2, signal.SIGTERM)
    with pytest.raises(SystemExit, match="-1"):
        start(LONG, tmp_path)
    assert signal.getsignal(signal.SIGUSR2) is requeue
    (path,) = found
    assert torch.load(path, weights_only=True)["position"] == {"experience": 0, "epoch": 0, "batch": 1}
    start(LONG, tmp_path, resume=True)
    assert (tmp_path / "result.json").exists()


def test_a_time_limit_after_which_a_job_is_not_requeued_is_no_fault_of_the_run(
    tmp_path, submitits_handler, with_signals
):
    def refuse(number, frame):
        raise RuntimeError("Job not requeued because: timed-out too many times.")

    submitits_handler(refuse)
    for resume in (False, True):  # what is raised after a checkpoint was loaded may be the checkpoint's fault
        with_signals(signal.SIGUSR2)
        with pytest.raises(TimeLimitError, match=r"timed-out too many times.*resume=true goes on"):
            start(LONG, tmp_path, resume=resume)
        assert not (tmp_path / "error.json").exists() and list((tmp_path / "checkpoints").iterdir())


def test_signals_that_are_not_this_processs_business_are_left_alone(tmp_path, submitits_handler, with_signals):
    called = []
    submitits_handler(lambda number, frame: called.append(number))  # as in processes that submitit does not requeue by
    with_signals(signal.SIGUSR2)
    start(LONG, tmp_path)
    assert called == [signal.SIGUSR2] and (tmp_path / "result.json").exists()
    with Termination():
        if (loader := os.fork()) == 0:  # a process that loads images: Slurm signals it, too
            try:
                os.kill(os.getpid(), signal.SIGUSR2)
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(loader, 0)[1]) == 7
    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    with Termination() as termination:
        os.kill(os.getpid(), signal.SIGUSR2)  # a handler of somebody else, who prints where the process is
        assert not termination.arrived
    signal.signal(signal.SIGUSR2, before)


# ---- damaged, foreign and malicious checkpoints ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was killed in its second experience, and one that was not."""
    overrides, folder = [*SHORT, "method=ftp", "train.epochs=1"], tmp_path_factory.mktemp("interrupted")
    start(overrides, folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        assert killed_after(13, overrides, folder / "cut", patch)
    return folder / "cut", overrides, outcome(folder / "whole")


@pytest.fixture
def cut(interrupted, tmp_path):
    """A copy of its directory, its overrides, and what it should come to."""
    directory, overrides, expected = interrupted
    return shutil.copytree(directory, tmp_path / "cut"), overrides, expected


def test_a_resumed_run_steps_as_this_machine_does(cut, monkeypatch):
    """As on CUDA, with a checkpoint from elsewhere."""

    def fused(options, model, prefers_fused):
        made.append(build_optimizer(options, model, prefers_fused=True))
        return made[-1]

    made = []
    monkeypatch.setattr("ftp_cl.runs.run.build_optimizer", fused)
    directory, overrides, _ = cut
    start(overrides, directory, resume=True)
    assert [group["fused"] for group in made[0].param_groups] == [True, True]


def newest(directory: Path) -> Path:
    return sorted((directory / "checkpoints").iterdir())[-1]


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def damage_nest(path: Path) -> None:
    path.write_text("[" * 100_000)


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_nest, damage_pipe, Path.unlink])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(cut, caplog, damage):
    directory, overrides, expected = cut
    assert len(list((directory / "checkpoints").iterdir())) == 2
    damage(newest(directory))
    with caplog.at_level(logging.WARNING):
        start(overrides, directory, resume=True)
    assert "damaged" in caplog.text or damage is Path.unlink
    assert outcome(directory) == expected


def test_with_all_checkpoints_damaged_the_run_begins_anew(cut):
    directory, overrides, expected = cut
    for path in (directory / "checkpoints").iterdir():
        path.write_bytes(b"")
    start(overrides, directory, resume=True)
    assert outcome(directory) == expected


@pytest.mark.parametrize("lost", [False, True])
def test_events_behind_the_checkpoint_are_cut_off_and_lost_ones_noticed(cut, lost):
    directory, overrides, expected = cut
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "exper')
        if lost:
            file.truncate(10)
    start(overrides, directory, resume=True)
    assert outcome(directory) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["strategy"]["model"]["requires_grad"].clear() or state["strategy"].pop("optimizer"),
        lambda state: state["strategy"].update(random={"ftp_cl.kind": "print"}),
        lambda state: state["strategy"]["parts"]["plugins"][0].update({"class": "os.system"}),
        lambda state: state.update(position={"experience": 0, "epoch": "__import__('os')", "surprise": 1}),
        lambda state: state["strategy"]["optimizer"]["names"][0].append("no.such.weight"),
        lambda state: state["position"].update(experience="0"),
        lambda state: state["position"].update(experience=99),
        lambda state: state["position"].update(epoch=99),
        lambda state: state["position"].update(batch=10**9),
        lambda state: state["position"].update(batch=-1),
        lambda state: state.update(matrix=[["much"]]),
        lambda state: state.update(matrix=[]),
        lambda state: state["loaders"].update(python=(3, (), None)),
        lambda state: state.update(versions=None),
    ],
    ids=[
        *("without optimizer", "unknown kind of value", "another class", "another position", "another weight"),
        *("no number", "no such experience", "no such epoch", "no such batch", "negative batch"),
        *("accuracies that are none", "accuracies missing", "random state of loaders", "versions"),
    ],
)
def test_a_forged_checkpoint_is_refused_in_one_sentence(cut, change):
    directory, overrides, _ = cut
    forge(directory, change)
    with pytest.raises(ConfigError, match="does not fit this run"):
        start(overrides, directory, resume=True)


def forge(directory, change):
    """Alter the newest checkpoint and make its checksum right."""
    path, buffer = newest(directory), io.BytesIO()
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, buffer)
    path.unlink()
    checksum = hashlib.sha256(buffer.getvalue()).hexdigest()
    (path.parent / f"{path.name.partition('-')[0]}-{checksum}.pt").write_bytes(buffer.getvalue())


class Code:
    """Makes a file if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused(cut):
    directory, overrides, _ = cut
    forge(directory, lambda state: state.update(versions=Code(directory / "ran")))
    with pytest.raises(ConfigError, match="more than plain values and tensors"):
        start(overrides, directory, resume=True)
    assert not (directory / "ran").exists()


def test_checkpoints_of_an_earlier_format_are_refused_and_removed_when_a_run_begins_anew(cut):
    directory, overrides, expected = cut
    for path in (directory / "checkpoints").iterdir():
        path.unlink()
    for name in ("000003.json", "000003.safetensors"):
        (directory / "checkpoints" / name).write_text("{}")
    with pytest.raises(ConfigError, match="of an earlier version"):
        start(overrides, directory, resume=True)
    start(overrides, directory)
    assert outcome(directory) == expected and not (directory / "checkpoints").exists()


@pytest.mark.parametrize("part", ["model", "optimizer", "random"])
@pytest.mark.parametrize(
    "alter",
    [lambda tensor: tensor.to(torch.float64), lambda tensor: tensor.repeat(2, *[1] * (tensor.dim() - 1))],
    ids=["float64", "resized"],
)
def test_resized_or_converted_tensors_are_refused_or_change_nothing(cut, part, alter):
    directory, overrides, expected = cut

    def altered(value):
        return alter(value) if isinstance(value, torch.Tensor) and value.dim() else value

    def change(state):
        state["strategy"][part] = torch.utils._pytree.tree_map(altered, state["strategy"][part])

    forge(directory, change)
    try:
        start(overrides, directory, resume=True)
    except ConfigError as error:
        assert "\n" not in str(error) and str(directory) in str(error)
    else:
        assert outcome(directory) == expected


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state["config"].update(seed=9), "another configuration, which differs in seed"),
        (lambda state: state["data"]["train"]["items"].__setitem__(1, 5), "experience 2 of train had 5 items, and has"),
        (lambda state: state["data"]["test"].update(digest="0"), "test has as many items, but other class indices"),
        (lambda state: state["data"].update(ood_fog={}), "of other data, with ood_fog"),
        (lambda state: state["data"].pop("test"), "of other data, without test"),
    ],
)
def test_a_checkpoint_of_another_run_or_of_other_data_is_refused(cut, change, told):
    directory, overrides, _ = cut
    forge(directory, change)
    before = sorted((directory / "checkpoints").iterdir())
    with pytest.raises(ConfigError, match=told):
        start(overrides, directory, resume=True)
    assert sorted((directory / "checkpoints").iterdir()) == before


def test_images_that_were_added_after_the_kill_are_noticed(tmp_path, monkeypatch):
    for split, name, number in itertools.product(("train", "test"), ("cat", "dog"), range(6)):
        (folder := tmp_path / "images" / split / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 80 * (name == "cat"), 9)).save(folder / f"{number}.png")
    overrides = [*SHORT[3:], "benchmark=image_folder", f"benchmark.dataset_root={tmp_path / 'images'}"]
    overrides += ["benchmark.size=8", "model.in_channels=3", "method=naive", "train.batch_size=4"]
    overrides += ["checkpoint.every_iterations=1"]
    start(overrides, tmp_path / "whole")
    killed_after(4, overrides, tmp_path / "cut", monkeypatch)
    added = shutil.copy(folder / "0.png", tmp_path / "images" / "train" / "cat" / "new.png")
    with pytest.raises(ConfigError, match="experience 1 of train had 12 items, and has 13 now"):
        start(overrides, tmp_path / "cut", resume=True)
    Path(added).unlink()
    start(overrides, tmp_path / "cut", resume=True)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


# ---- what cannot be written or saved --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A directory on a disk of its own that is soon full, and what fills it."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)]
    mounted = subprocess.run(mounting, capture_output=True, text=True) if shutil.which("mount") else None
    if mounted is None or mounted.returncode:
        pytest.skip("no small disk can be mounted here: that takes root")

    def fill():
        with contextlib.suppress(OSError), (directory / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    yield directory, fill
    subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.parametrize("moment", [SLOWLY("training"), "a checkpoint", SLOWLY("the result")])
def test_a_run_on_a_full_disk_ends_in_one_sentence_and_goes_on_when_there_is_room(
    ftp_cl, refused, small_disk, tmp_path, monkeypatch, moment
):
    from ftp_cl.runs.checkpoints import Checkpoints

    overrides = [*SHORT, "method=ftp"]
    disk, fill = small_disk
    owner, name = {
        "training": (Recorder, "after_training_epoch"),
        "a checkpoint": (Checkpoints, "save"),
        "the result": (RunDirectory, "write_result"),
    }[moment]
    calls, whole = 0, getattr(owner, name)

    def full_at_the_second_call(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 2 or moment == "the result":
            fill()
        return whole(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full_at_the_second_call)
        error = refused("run", *overrides, f"out={disk / 'run'}")
    assert str(disk / "run") in error and "No space left on device; once there is room, resume=true goes on" in error
    assert not list((disk / "run").rglob("*.tmp")) and not (disk / "run" / "result.json").exists()
    events = (disk / "run" / "metrics.jsonl").read_text()
    assert events == "" or events.endswith("\n")
    # As long as there is no room, nothing is made worse.
    refused("run", *overrides, f"out={disk / 'run'}", "resume=true")
    (disk / "ballast").unlink()
    status, printed, error = ftp_cl("run", *overrides, f"out={disk / 'run'}", "resume=true")
    assert status == 0 and "resumed at" in printed, error
    start(overrides, tmp_path / "whole")
    assert outcome(disk / "run") == outcome(tmp_path / "whole")


def test_runs_cannot_begin_on_a_full_disk_and_begin_when_there_is_room(ftp_cl, refused, small_disk):
    disk, fill = small_disk
    fill()
    overrides = [*SHORT, "method=naive", "train.epochs=1", f"out={disk / 'run'}"]
    assert "No space left on device" in refused("run", *overrides)
    status, _, error = ftp_cl("run", "-m", *overrides, f"out={disk / 'many'}", "seed=0,1")
    assert status == 1 and "No space left on device" in error
    (disk / "ballast").unlink()
    assert ftp_cl("run", *overrides)[0] == 0


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(tmp_path, monkeypatch, capsys):
    from ftp_cl.runs import checkpoint_files

    def full(contents):
        raise OSError(28, "No space left on device", str(next(iter(contents))))

    monkeypatch.setattr(checkpoint_files, "replace_files", full)
    start([*SHORT, "method=ftp"], tmp_path / "run")
    assert capsys.readouterr().out.count("No space left on device") == 1
