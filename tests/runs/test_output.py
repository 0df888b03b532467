"""What is printed: nothing in it steers a terminal, and a terminal that fails fails no run."""

import os
import subprocess
import sys
import warnings

import pytest

from ftp_cl.runs.output import lasting_output, sentence, without_warnings_of_others


def test_escape_codes_and_directions_do_not_reach_the_terminal():
    assert sentence(ValueError("two\nlines \x1b[2J")) == r"two lines \x1b[2J"
    assert sentence(OSError(28, "No space left on device", "/x/\x1by")) == r"/x/\x1by: No space left on device."
    assert sentence(KeyError("k")) == "KeyError: 'k'" and sentence(FileNotFoundError("no file x")) == "no file x"


def test_a_warning_that_hydra_shows_again_by_keywords_is_shown():
    with pytest.warns(UserWarning, match="of a plugin"), without_warnings_of_others():
        shown = {"message": UserWarning("of a plugin"), "category": UserWarning, "filename": "plugin.py", "lineno": 1}
        warnings.showwarning(**shown)


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def test_output_without_a_reader_goes_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stdout", closed_pipe())
    with lasting_output(BrokenPipeError):
        print("one" * 10_000)
        print("two", flush=True)
    sys.stdout.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
def test_a_full_disk_is_told_where_the_output_is_the_work(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left"), lasting_output(BrokenPipeError):
            print("a list")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with lasting_output():
            print("a line of a run", flush=True)


def test_a_list_ends_quietly_when_nobody_reads_and_needs_ascii_only():
    command = [sys.executable, "-m", "ftp_cl.cli", "list", "methods"]
    with closed_pipe() as pipe:
        finished = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True)
        assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.slow
def test_a_run_finishes_on_a_terminal_that_knows_ascii_only_without_avalanches_warnings_on_its_own_code(tmp_path):
    words = ["run", "benchmark=split_digits", "benchmark.n_experiences=2", "model=small_cnn", "method=replay"]
    words += ["train.epochs=1", "train.batch_size=64", "threads=1", "eval.ood_every=never", "label='größer'"]
    command = [sys.executable, "-m", "ftp_cl.cli", *words, "out=run"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert finished.returncode == 0 and (tmp_path / "run" / "result.json").exists(), finished.stderr
    assert b"gr" in finished.stdout and finished.stderr == b""
