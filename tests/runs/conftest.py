"""Runs that are interrupted once; test_resume.py interrupts at every place."""

import json

import pytest


@pytest.fixture
def resumed(tmp_path, monkeypatch):
    """Run whole, and once more with an interruption; returns the result, and the weights must be the same.

    `at`: experience and iteration, from 0, before which the run is interrupted; `every`: iterations a checkpoint.
    """
    from ftp_cl.runs.config import load_config
    from ftp_cl.runs.loop import Recorder
    from ftp_cl.runs.run import run

    def call(*overrides, at=(1, 3), every=2):
        def interrupt(self, strategy, **kwargs):
            self._start = 0.0
            if (strategy.clock.train_exp_counter, strategy.clock.train_exp_iterations) == at:
                raise KeyboardInterrupt

        def start(name, *more):
            path = run(load_config([*overrides, "save_weights=true", *more]), tmp_path / name)
            return json.loads(path.read_text()), path.with_name("weights.safetensors").read_bytes()

        result, weights = start("whole")
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "before_training_iteration", interrupt)
            with pytest.raises(KeyboardInterrupt):
                start("cut", f"checkpoint.every_iterations={every}")
        again, again_weights = start("cut", "resume=true")
        assert again_weights == weights
        for key in ("accuracy_matrix", "ood", "pixels"):
            assert again.get(key) == result.get(key)
        return result

    return call
