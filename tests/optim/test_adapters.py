"""FTP on peft's adapters against the literal algorithm on the whole change dW, which is computed without our code."""

import dataclasses
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoHaConfig, LoraConfig, VeraConfig, get_peft_model
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from ftp_cl.optim import FTP
from ftp_cl.projection import LiteralState, literal_step


class Case:
    """One adapted layer in float64, its change by hand, and its output with a change that is given.

    The names of `build` are of the layer; those of `rows`, whether dW's rows are columns of the base weight.
    """

    def __init__(self, kind, outputs, inputs, rank, alpha, rslora, dropout=0.0):
        self.kind, self.outputs, self.inputs = kind, outputs, inputs
        base = {
            "linear": lambda: nn.Linear(inputs, outputs),
            "conv1d": lambda: Conv1D(outputs, inputs),
            "conv2d": lambda: nn.Conv2d(inputs, outputs, (2, 3), padding=1),
            "grouped": lambda: nn.Conv2d(2 * inputs, 2 * outputs, 2, groups=2),
            "embedding": lambda: nn.Embedding(inputs, outputs),
            "loha": lambda: nn.Linear(inputs, outputs),
            "loha_conv": lambda: nn.Conv2d(inputs, outputs, 2),
            "vera": lambda: nn.Linear(inputs, outputs),
        }[kind]()
        if kind == "grouped":
            rank *= 2
        if kind.startswith("loha"):
            config = LoHaConfig(r=rank, alpha=alpha, target_modules=["0"])
        elif kind == "vera":
            config = VeraConfig(r=rank, target_modules=["0"], vera_dropout=dropout)
        else:
            config = LoraConfig(
                r=rank,
                lora_alpha=alpha,
                use_rslora=rslora,
                target_modules=["0"],
                lora_dropout=dropout,
                fan_in_fan_out=kind == "conv1d",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's about merging grouped convolutions
            self.model = get_peft_model(nn.Sequential(base), config).double()
        self.layer = self.model.base_model.model[0]
        if kind == "vera":
            self.layer.vera_A["default"] = self.layer.vera_A["default"].double()
            self.layer.vera_B["default"] = self.layer.vera_B["default"].double()
        self.rank, self.scale = rank, 1.0 if kind == "vera" else alpha / (rank**0.5 if rslora else rank)

    def batch(self):
        if self.kind == "embedding":
            return torch.randint(0, self.inputs, (2, 3))
        if self.kind in ("conv2d", "grouped", "loha_conv"):
            return torch.randn(2, self.inputs * (2 if self.kind == "grouped" else 1), 4, 4, dtype=torch.float64)
        return torch.randn(2, 3, self.inputs, dtype=torch.float64)

    def output(self, x):
        return self.model.base_model.model(x)

    def change(self):
        """DW, a row first."""
        layer = self.layer
        if self.kind == "embedding":
            a, b = layer.lora_embedding_A["default"].detach(), layer.lora_embedding_B["default"].detach()
            return self.scale * torch.einsum("dr,rt->td", b, a)
        if self.kind in ("linear", "conv1d"):
            return self.scale * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach()
        if self.kind in ("conv2d", "grouped"):
            a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
            groups = 2 if self.kind == "grouped" else 1
            rows = []
            for i, row in enumerate(b.flatten(1)):
                first = i // (len(b) // groups) * (self.rank // groups)
                rows.append(sum(row[j] * a[first + j] for j in range(self.rank // groups)))
            return self.scale * torch.stack(rows)
        return layer.get_delta_weight("default").detach()

    def output_with(self, x, change):
        base = self.layer.base_layer
        if self.kind == "grouped":
            return base(x) + F.conv2d(x, change)
        if self.kind == "conv1d":
            change = change.T
        return functional_call(base, {"weight": base.weight + change, "bias": getattr(base, "bias", None)}, (x,))


KINDS = ["linear", "conv1d", "conv2d", "grouped", "embedding", "loha", "loha_conv", "vera"]


def name_of(ftp, case):
    part = {"embedding": "lora_embedding_A", "vera": "vera_lambda_b"}.get(case.kind, "lora_B")
    part = "hada_w1_a" if case.kind.startswith("loha") else part
    return next(name for name in ftp.projected_names() if part in name)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    rank=st.integers(1, 3),
    alpha=st.sampled_from([0.5, 1, 8]),
    rslora=st.booleans(),
    method=st.sampled_from(["paper", "exact", "one_pass"]),
    k=st.sampled_from([0.0, 0.5, 1.0]),
    adam=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_ball_is_around_the_whole_change(kind, shape, rank, alpha, rslora, method, k, adam, seed):
    torch.manual_seed(seed)
    case = Case(kind, *shape, rank, alpha, rslora)
    parameters = [parameter for parameter in case.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05) if adam else torch.optim.SGD(parameters, lr=0.5, momentum=0.5)
    trained = []
    optimizer.register_step_post_hook(lambda *_: trained.append(case.change()))
    ftp = FTP(case.model, method=method, k=k, mu=0.05).attach(optimizer)
    name, state = name_of(ftp, case), LiteralState()
    for _ in range(6):
        x = case.batch()
        before = case.change().requires_grad_()
        gradient = torch.autograd.grad(case.output_with(x, before).cos().sum(), before)[0]
        optimizer.zero_grad()
        case.output(x).cos().sum().backward()
        optimizer.step()
        if method == "exact" and state.change is not None:
            norms = state.change.flatten(1).abs().sum(1) + 1e-8
            change = state.change * (norms > state.radius).view(-1, *[1] * (before.dim() - 1))
            state = dataclasses.replace(state, change=change)
        expected, state = literal_step(
            *(state, trained.pop(), torch.zeros_like(before), gradient),
            **{"k": k, "mu": 0.05, "before": before.detach() if method == "one_pass" else None},
        )
        torch.testing.assert_close(case.change(), expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ftp.radii()[name], state.radius, rtol=1e-10, atol=1e-10)
        own = ftp.state_dict()["tensors"][name]
        assert own["first_moment"] == pytest.approx(state.first_moment, rel=1e-9, abs=1e-10)
        assert own["second_moment"] == pytest.approx(state.second_moment, rel=1e-9, abs=1e-10)
