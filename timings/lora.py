"""What FTP on LoRA costs: the share of a training iteration, and what it keeps in memory.

    python timings/lora.py                          # a BERT of MiniLM-L6's size, rank 16 on all its linear layers
    python timings/lora.py --device cuda

An iteration is a forward pass of 16 texts of 128 tokens, a backward pass and a step of fused AdamW, on random weights
and tokens. FTP's share is that of the time which steps take longer with it, on the same gradients; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertModel

from ftp_cl.optim import FTP

LINEAR = ["query", "key", "value", "dense"]


def adapted(device: torch.device, rank: int) -> nn.Module:
    """MiniLM-L6's encoder with LoRA; the pooler is left out."""
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    model = BertModel(config, add_pooling_layer=False)
    return get_peft_model(model, LoraConfig(r=rank, target_modules=LINEAR)).to(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--method", default="paper", choices=["paper", "exact", "one_pass"])
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = adapted(device, options.rank)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    ftp = FTP(model, method=options.method).attach(optimizer)
    tokens = torch.randint(0, 30000, (16, 128), device=device)

    def passes() -> None:
        optimizer.zero_grad()
        model(tokens).last_hidden_state.square().mean().backward()

    times: dict[str, list[float]] = {"passes": [], "step": [], "step with FTP": []}
    for _ in range(options.rounds):
        times["passes"].append(seconds(passes, device))
        ftp.detach()
        times["step"].append(seconds(optimizer.step, device))
        ftp.attach(optimizer)
        times["step with FTP"].append(seconds(optimizer.step, device))
    median = {what: statistics.median(values) for what, values in times.items()}
    for what, value in median.items():
        print(f"{what:14} {1e3 * value:9.2f} ms")
    added = median["step with FTP"] - median["step"]
    print(f"FTP's share of an iteration: {added / (median['passes'] + median['step'] + added):.2%}")
    tensors = [value for state in ftp.state_dict()["tensors"].values() for value in state.values()]
    kept = sum(value.numel() * value.element_size() for value in tensors if isinstance(value, torch.Tensor))
    change = 4 * sum(module.base_layer.weight.numel() for module in model.modules() if hasattr(module, "lora_A"))
    print(f"kept: {kept / 2**10:.0f} KiB; the changes themselves would take {change / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
