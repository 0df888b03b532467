"""The random states of a run."""

import torch

from ftp_cl.plugins.randomness import capture_random_state, restore_random_state


def test_the_generator_of_the_run_s_gpu_is_saved_and_comes_back_on_another(monkeypatch):
    restored = {}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([device.index], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.update({str(device): state.item()}))
    state = capture_random_state(torch.device("cuda:1"))
    restore_random_state(state, torch.device("cuda:0"))
    assert restored == {"cuda:0": 1}
    restore_random_state(state, torch.device("cpu"))  # a run that goes on without a GPU
    restore_random_state(capture_random_state(torch.device("cpu")), torch.device("cuda:0"))
    assert len(restored) == 1
