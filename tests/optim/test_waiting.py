"""No step waits for a number to be read back from the device: torch tells on a GPU, and its operations do on CPU."""

import contextlib

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ftp_cl.optim import FTP, TPGM
from ftp_cl.projection import available_backends


class Reading(TorchDispatchMode):
    """Fails where a number is read out of a tensor, or the size of a result depends on one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert not any(part in name for part in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")), name
        if name.startswith(("aten.index.", "aten.index_put")):
            assert not any(index.dtype == torch.bool for index in args[1] if index is not None), f"{name} by a mask"
        return function(*args, **(kwargs or {}))


def model(device="cpu"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(36, 300), nn.Linear(300, 10)).to(device)


def set_gradients(module, step):
    for parameter in module.parameters():
        parameter.grad = torch.cos(parameter.detach() * 100 + step)


def steps(backend, method, device, kind, within, scaled=False, number=6, **options):
    module = model(device)
    optimizer = kind(module.parameters(), lr=1e-2, **options)
    ftp = FTP(module, backend=backend, method=method, k=0.5).attach(optimizer)
    scaler = torch.amp.GradScaler(device, init_scale=4.0, enabled=scaled)
    scaler.scale(torch.zeros((), device=device))  # makes its scale
    for step in range(number):
        set_gradients(module, step)
        if step < 2:  # allocates state
            scaler.step(optimizer)
        else:
            with within():
                scaler.step(optimizer)
        scaler.update()
    return module, ftp


METHODS = pytest.mark.parametrize("method", ["paper", "exact", "one_pass"])


@METHODS
@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize(("kind", "options"), [(torch.optim.SGD, {}), (torch.optim.AdamW, {"fused": True})])
def test_no_number_is_read_in_a_step(backend, method, kind, options):
    steps(backend, method, "cpu", kind, Reading, **options)


@METHODS
def test_no_number_of_an_adapter_is_read_in_a_step(method):
    module = get_peft_model(model(), LoraConfig(r=2, target_modules=["0", "2", "3"]))
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], fused=True)
    FTP(module, method=method).attach(optimizer)
    for step in range(4):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.cos(parameter.detach() * 100 + step)
        with Reading() if step else contextlib.nullcontext():
            optimizer.step()


def test_no_number_is_read_in_a_projection_of_tpgm():
    weights = dict(model().named_parameters())
    tpgm = TPGM(weights, weights)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(torch.cos(weight))
    with Reading():
        tpgm.project()


class Forbidden:
    """Torch raises where the host waits for a GPU."""

    def __enter__(self):
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *args):
        torch.cuda.set_sync_debug_mode("default")


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@on_gpu
@METHODS
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_no_step_waits_for_a_gpu(backend, method, kind, scaled):
    module, ftp = steps(backend, method, "cuda", kind, Forbidden, scaled, number=40, fused=True)
    expected, reference = steps("torch", method, "cpu", kind, torch.no_grad, scaled, number=40, fused=True)
    for one, other in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-3, atol=1e-4)
    assert ftp.radii() == pytest.approx(reference.radii(), rel=1e-2, abs=1e-4)


@on_gpu
@METHODS
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_ten_replays_of_a_graph_equal_ten_steps(backend, method, kind):
    capturable = {"capturable": True} if kind is torch.optim.AdamW else {}

    def run(graph):
        module = model("cuda")
        optimizer = kind(module.parameters(), lr=1e-2, fused=True, **capturable)
        ftp = FTP(module, backend=backend, method=method).attach(optimizer)
        set_gradients(module, 0)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)
        if graph:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                optimizer.step()
        for _ in range(10):
            captured.replay() if graph else optimizer.step()
        return [parameter.detach().cpu() for parameter in module.parameters()], ftp.radii()

    (expected, radii), (replayed, same) = run(False), run(True)
    for one, other in zip(expected, replayed, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    assert same == pytest.approx(radii, rel=1e-5)


@on_gpu
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_skips_on_a_gpu_are_told_some_steps_later(backend, caplog):
    module = model("cuda")
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    ftp = FTP(module, backend=backend).attach(optimizer)
    for step in range(60):
        set_gradients(module, step)
        if step == 5:
            module[2].bias.grad[0] = torch.nan
        optimizer.step()
        torch.cuda.synchronize()
    assert caplog.text.count("2.bias: a gradient or weight is not finite") == 1
    assert ftp.skipped()["2.bias"] == 55
