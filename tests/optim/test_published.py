"""Every way to run FTP follows the trajectories of the published code, step by step."""

import pytest
import torch

from ftp_cl.optim import FTP, SGDP, AdamP
from ftp_cl.projection import LiteralState, available_backends, literal_step

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(name not in available_backends(), reason=f"{name} is not installed"))
    for name in ("torch", "numba")
]
PROJECTED = ("conv.weight", "fc.weight", "fc.bias", "pos_embed", "scale")
HEAD = {"head.weight", "head.bias"}
CASES = ("sgd", "sgd_nesterov_wd", "sgd_momentum_k0", "adam", "adam_wd_k05", "adam_amsgrad")
SGD_OPTIONS = {
    "sgd": {"lr": 0.05},
    "sgd_nesterov_wd": {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "sgd_momentum_k0": {"lr": 0.02, "momentum": 0.9},
}
ADAM_OPTIONS = {
    "adam": {"lr": 3e-3, "weight_decay": 0.0},
    "adam_wd_k05": {"lr": 3e-3, "weight_decay": 0.05},
    "adam_amsgrad": {"lr": 3e-3, "weight_decay": 0.0, "amsgrad": True},
}
K = {"sgd_momentum_k0": 0.0, "adam_wd_k05": 0.5}


def base_optimizer(case, parameters, implementation):
    flags = {"foreach": implementation == "foreach", "fused": implementation == "fused"}
    if case in SGD_OPTIONS:
        return torch.optim.SGD(parameters.values(), **SGD_OPTIONS[case], **flags)
    return torch.optim.AdamW(parameters.values(), **ADAM_OPTIONS[case], **flags)


def drop_in(case, parameters, anchors, backend):
    groups = [{"params": list(parameters.values()), "pre": [anchors[n] for n in parameters], "name": list(parameters)}]
    kind, options = (SGDP, SGD_OPTIONS) if case in SGD_OPTIONS else (AdamP, ADAM_OPTIONS)
    return kind(groups, **options[case], k=K.get(case, 1.0), exclude_set=HEAD, backend=backend)


def follow(golden, case, parameters, optimizer, radii):
    gradients, expected, expected_radii = golden.gradients(), golden.weights(case), golden.radii(case)
    for step in range(len(expected_radii)):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][step].clone()
        optimizer.step()
        for name, parameter in parameters.items():
            golden.assert_close(parameter, expected[name][step], f"{case}, {name}, step {step + 1}")
        actual = torch.tensor([radii()[name] for name in PROJECTED], dtype=torch.float64)
        golden.assert_close(actual, expected_radii[step].double(), f"{case}, radii, step {step + 1}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("implementation", ["plain", "foreach", "fused"])
@pytest.mark.parametrize("case", CASES)
def test_attached_ftp_follows_the_published_trajectory(golden, case, implementation, backend):
    parameters = golden.parameters()
    optimizer = base_optimizer(case, parameters, implementation)
    options = {"k": K.get(case, 1.0), "anchor": golden.anchors(), "exclude": HEAD, "backend": backend}
    ftp = FTP(parameters.items(), **options).attach(optimizer)
    follow(golden, case, parameters, optimizer, ftp.radii)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_drop_in_optimizer_follows_the_published_trajectory(golden, case, backend):
    parameters = golden.parameters()
    optimizer = drop_in(case, parameters, golden.anchors(), backend)
    follow(golden, case, parameters, optimizer, optimizer.ftp.radii)


@pytest.mark.parametrize("case", CASES)
def test_literal_version_follows_the_published_trajectory(golden, case):
    parameters, anchors, gradients = golden.parameters(), golden.anchors(), golden.gradients()
    optimizer = base_optimizer(case, parameters, "plain")
    states = {name: LiteralState() for name in PROJECTED}
    expected, expected_radii = golden.weights(case), golden.radii(case)
    for step in range(len(expected_radii)):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][step].clone()
        optimizer.step()
        for i, name in enumerate(PROJECTED):
            weights, states[name] = literal_step(
                states[name], parameters[name].detach(), anchors[name], gradients[name][step], k=K.get(case, 1.0)
            )
            with torch.no_grad():
                parameters[name].copy_(weights)
            golden.assert_close(weights, expected[name][step], f"{case}, {name}, step {step + 1}")
            radius = torch.tensor(states[name].radius, dtype=expected_radii.dtype)
            golden.assert_close(radius, expected_radii[step, i], f"{case}, radius of {name}, step {step + 1}")
