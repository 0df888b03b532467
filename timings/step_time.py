"""What a step of FTP costs, as a multiple of torch's fused AdamW on the same tensors.

    python timings/step_time.py                        # all tables of the CPU, some minutes on two cores
    python timings/step_time.py --only models --rounds 5
    python timings/step_time.py --json speed.json --docs docs/timings.md
    python timings/step_time.py --device cuda          # those of a GPU, meant for under four minutes on an H100
    python timings/step_time.py --device cuda --only compiled  # torch.compile takes minutes there

All contenders of a row share weights and gradients and take turns, so that a busy machine slows all of them; a figure
is the median over the rounds. Every row of every tensor lies outside its ball, which is the most expensive case.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ftp_cl.optim import FTP, TPGM
from ftp_cl.projection import LiteralState, available_backends, literal_step

MODELS = {"EfficientNet-Lite0": "tf_efficientnet_lite0", "ResNet-50": "resnet50", "ViT-B/16": "vit_base_patch16_224"}
LLAMA = "Llama, 1.1 B"
BASE = "AdamW fused"
Contenders = dict[str, Callable[[], None]]

device = torch.device("cpu")
"""Where all tensors are. Not torch's default device, which makes each call of torch take longer."""


# ---- tensors ---------------------------------------------------------------------------------------------------------


def shapes_of(model: str) -> list[Any]:
    """The shapes of a timm model's parameters, without building its weights; or of a language model's."""
    if model == LLAMA:
        layer = [(2048, 2048)] * 2 + [(256, 2048)] * 2 + [(5632, 2048)] * 2 + [(2048, 5632), (2048,), (2048,)]
        return [(32000, 2048)] * 2 + [(2048,)] + layer * 22
    with torch.device("meta"):
        return [parameter.shape for parameter in timm.create_model(model).parameters()]


def backends() -> list[str]:
    """Those with code of their own for the device that is measured; on others they would be plain torch twice."""
    other = "triton" if device.type == "cpu" else "numba"
    return [name for name in available_backends() if name != other]


def parameters_of(shapes: list[Any], dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """Random weights of these shapes, with small random gradients."""
    parameters = {}
    for number, shape in enumerate(shapes):
        parameter = nn.Parameter(torch.randn(shape, device=device).to(dtype))
        parameter.grad = torch.randn(shape, device=device).mul_(1e-2).to(dtype)
        parameters[f"tensor{number}"] = parameter
    return parameters


# ---- contenders ------------------------------------------------------------------------------------------------------


RULES: dict[str, dict[str, Any]] = {"": {}, ", one pass": {"method": "one_pass"}}


def contenders(parameters: dict[str, nn.Parameter], several: bool, literal: bool) -> Contenders:
    """One optimizer step each, on the same weights and gradients; the first is what the others are compared with.

    "hooks" are before and after AdamW's own step, as they would be with any optimizer; otherwise FTP takes its update
    and the projection together.
    """
    adamw = torch.optim.AdamW(parameters.values(), lr=1e-3, fused=True)
    precise = next(iter(parameters.values())).dtype == torch.float32
    steps: Contenders = {BASE: adamw.step}
    for backend in backends():
        for rule, settings in RULES.items() if precise else [("", {})]:
            for hooks in ways(backend, several):
                optimizer = with_ftp(adamw, parameters, hooks, backend=backend, **settings)
                steps[f"{backend}{rule}{', hooks' * hooks}"] = optimizer.step
        if several and precise and backend != "torch":
            halved = with_ftp(adamw, parameters, backend=backend, direction_dtype="bfloat16")
            steps[f"{backend}, change in bfloat16"] = halved.step
    if literal:
        steps["literal"] = literal_contender(parameters, adamw)
    return steps


def ways(backend: str, several: bool = True) -> list[bool]:
    """Whether as hooks: plain torch always is."""
    return [True] if backend == "torch" else [False, True][: 1 + several]


def with_ftp(
    adamw: torch.optim.AdamW, parameters: dict[str, nn.Parameter], hooks: bool = False, **options: Any
) -> torch.optim.AdamW:
    """Another optimizer of these parameters, with the same state, to which FTP is attached."""
    settings = {name: adamw.defaults[name] for name in ("lr", "fused", "capturable")}
    optimizer = torch.optim.AdamW(adamw.param_groups[0]["params"], **settings)
    FTP(parameters.items(), **options).attach(optimizer)
    if hooks:
        optimizer.register_step_pre_hook(lambda *_: None)  # a stranger's, for which FTP leaves the step to torch
    optimizer.state = adamw.state
    return optimizer


def graph_contenders(parameters: dict[str, nn.Parameter]) -> Contenders:
    """Replays of captured steps: of the host, there is one launch in these times."""
    adamw = torch.optim.AdamW(parameters.values(), lr=1e-3, fused=True, capturable=True)
    steps: Contenders = {BASE: adamw.step, "AdamW, graph": captured(adamw.step)}
    for rule, settings in RULES.items():
        for hooks in ways("triton"):
            optimizer = with_ftp(adamw, parameters, hooks, backend="triton", **settings)
            steps[f"triton{rule}{', hooks' * hooks}, graph"] = captured(optimizer.step)
    return steps


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The replay of a step that is captured after some that run as usual."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def literal_contender(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """The oracle behind the optimizer's step."""
    states = {name: LiteralState() for name in parameters}
    anchors = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def step() -> None:
        optimizer.step()
        for name, parameter in parameters.items():
            projected, states[name] = literal_step(states[name], parameter, anchors[name], parameter.grad)
            parameter.copy_(projected)

    return step


def iteration_contenders(name: str, batch_size: int, pixels: int) -> Contenders:
    """Whole training iterations: forward, backward, step; on a GPU with autocast to bfloat16."""
    model = timm.create_model(MODELS[name], num_classes=20).to(device)
    images = torch.randn(batch_size, 3, pixels, pixels, device=device)
    labels = torch.randint(0, 20, (batch_size,), device=device)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    head = set(model.get_classifier().parameters())
    excluded = [name for name, parameter in model.named_parameters() if parameter in head]

    def loss() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return nn.functional.cross_entropy(model(images), labels)

    def iterate(optimizer: torch.optim.AdamW = adamw) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    steps: Contenders = {"naive": iterate}
    for backend in backends():
        for rule, settings in RULES.items():
            for hooks in ways(backend):
                options = {"exclude": excluded, "backend": backend, **settings}
                projecting = with_ftp(adamw, dict(model.named_parameters()), hooks, **options)
                label = f"{backend}{rule}{', hooks' * hooks}"
                steps[label] = lambda projecting=projecting: iterate(projecting)

    projected = {name: parameter for name, parameter in model.named_parameters() if parameter not in head}
    tpgm = TPGM(projected, {name: parameter.detach().clone() for name, parameter in projected.items()})

    def iterate_with_tpgm() -> None:
        """As published: the radii take a step on a held-out batch in every iteration."""
        iterate()
        model.eval()
        tpgm.learn(loss)
        model.train()
        tpgm.project()

    steps["TPGM"] = iterate_with_tpgm
    return steps


# ---- timing ----------------------------------------------------------------------------------------------------------


def time_in_turns(steps: Contenders, rounds: int, repeats: int = 1) -> dict[str, float]:
    """Median seconds of each contender; they take turns, of several steps back to back."""
    for step in steps.values():  # compiles, allocates state
        step(), step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            wait_for_gpu()
            started = time.perf_counter()
            for _ in range(repeats):
                step()
            wait_for_gpu()
            seconds[name].append((time.perf_counter() - started) / repeats)
    return {name: statistics.median(values) for name, values in seconds.items()}


def wait_for_gpu() -> None:
    """Let it finish what it was told to do; nothing on CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def row(
    what: str,
    tensors: list[Any],
    rounds: int,
    *,
    dtype: torch.dtype = torch.float32,
    number: int = 1,
    several: bool = True,
    literal: bool = False,
) -> dict[str, Any]:
    """One line of a table of steps."""
    parameters = parameters_of(tensors, dtype)
    with threads(number):
        seconds = time_in_turns(contenders(parameters, several, literal), rounds)
    weights = sum(parameter.numel() for parameter in parameters.values())
    labels = {"tensors": what, "weights": weights, "count": len(tensors), "dtype": str(dtype)[6:], "threads": number}
    print(labels, {name: f"{value / seconds[BASE]:.2f}x" for name, value in seconds.items()}, flush=True)
    return {**labels, "seconds": seconds}


# ---- tables ----------------------------------------------------------------------------------------------------------


def models_table(rounds: int, thread_numbers: list[int]) -> list[dict[str, Any]]:
    """Tensors of real models; the literal version once, because it is slow."""
    table = []
    on_gpu = device.type == "cuda"
    for name, model in {**MODELS, **({LLAMA: LLAMA} if on_gpu else {})}.items():
        for dtype in (torch.float32,) if on_gpu else (torch.float32, torch.bfloat16):
            for number in thread_numbers:
                literal = number == 1 and dtype == torch.float32 and name == "EfficientNet-Lite0" and not on_gpu
                table.append(row(name, shapes_of(model), rounds, dtype=dtype, number=number, literal=literal))
    return table


def graphs_table(rounds: int, thread_numbers: list[int]) -> list[dict[str, Any]]:
    """Replays of CUDA graphs."""
    table = []
    for name, model in {**MODELS, LLAMA: LLAMA}.items():
        seconds = time_in_turns(graph_contenders(parameters_of(shapes_of(model), torch.float32)), rounds)
        table.append({"tensors": name, "seconds": seconds})
        print(name, {contender: f"{value / seconds[BASE]:.2f}x" for contender, value in seconds.items()}, flush=True)
        torch.cuda.empty_cache()
    return table


def growth_table(rounds: int, thread_numbers: list[int]) -> list[dict[str, Any]]:
    """The same number of weights in few large tensors and in many small ones."""
    table = []
    for millions in (1, 10, 100, 300):
        weights = millions * 1_000_000
        large, small = [(weights // 4000, 1000)] * 4, [(64, 100)] * (weights // 6400)
        few = max(3, rounds // max(1, millions // 30))
        table.append(row("few large", large, few, number=thread_numbers[0], several=False))
        if len(small) <= 20_000:
            table.append(row("many of 6400", small, few, number=thread_numbers[0], several=False))
    return table


def iterations_table(rounds: int, thread_numbers: list[int]) -> list[dict[str, Any]]:
    """Whole iterations: at batch 32, 64 px on CPU; at batch 64, 224 px on a GPU, five back to back."""
    on_gpu = device.type == "cuda"
    sizes, repeats, rounds = ((64, 224), 5, min(rounds, 8)) if on_gpu else ((32, 64), 1, rounds)
    table = []
    for name in MODELS if on_gpu else ["EfficientNet-Lite0"]:
        for number in thread_numbers:
            with threads(number):
                seconds = time_in_turns(iteration_contenders(name, *sizes), rounds, repeats)
            table.append({"model": name, "threads": number, "seconds": seconds})
            print(name, number, {n: f"{value / seconds['naive']:.3f}x" for n, value in seconds.items()}, flush=True)
    return table


def compiled_table(rounds: int, thread_numbers: list[int]) -> list[dict[str, Any]]:
    """Whole iterations, eager and with forward, backward and step in torch.compile."""
    sizes = (64, 224) if device.type == "cuda" else (32, 64)
    table = []
    for name in MODELS if device.type == "cuda" else ["EfficientNet-Lite0"]:
        eager = iteration_contenders(name, *sizes)
        steps: Contenders = {}
        for contender in ("naive", "numba", "triton", "torch, hooks"):
            if contender in eager:
                steps |= {contender: eager[contender], f"{contender}, compiled": torch.compile(eager[contender])}
        with threads(thread_numbers[0]):
            seconds = time_in_turns(steps, rounds)
        table.append({"model": name, "threads": thread_numbers[0], "seconds": seconds})
        print(name, {n: f"{value / seconds['naive']:.3f}x" for n, value in seconds.items()}, flush=True)
    return table


MEMORY_SETTINGS: list[dict[str, Any]] = [
    {},
    {"direction_dtype": "bfloat16"},
    {"anchor_device": "cpu"},
    {"method": "one_pass"},
    {"method": "one_pass", "anchor_dtype": "bfloat16", "round_anchor": True},
]


def memory_table(rounds: int, thread_numbers: list[int]) -> list[dict[str, Any]]:
    """Bytes per weight that a step leaves behind and that it needs in passing, on ResNet-50's tensors."""
    shapes = shapes_of(MODELS["ResNet-50"])
    table = []
    for dtype in (torch.float32, torch.bfloat16):
        for setting in MEMORY_SETTINGS:
            if "method" in setting and dtype != torch.float32:
                continue
            for backend in backends():
                line = {"weights": str(dtype)[6:], "setting": _setting(setting), "backend": backend}
                line |= bytes_per_weight(parameters_of(shapes, dtype), backend, setting)
                print(line, flush=True)
                table.append(line)
    return table


def bytes_per_weight(
    parameters: dict[str, nn.Parameter], backend: str, setting: dict[str, Any]
) -> dict[str, float | int]:
    """What torch has allocated for FTP, from its own record of allocations: kept, and at the peak of a step."""
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-3)
    ftp = FTP(parameters.items(), backend=backend, **setting).attach(optimizer)
    weights = sum(parameter.numel() for parameter in parameters.values())
    largest = max(parameter.nbytes for parameter in parameters.values())
    for _ in range(2):  # compiles, allocates state
        optimizer.step()
    states = ftp.state_dict()["tensors"].values()
    anchors = sum(state["anchor"].nbytes for state in states)
    changes = sum(state["change"].nbytes for state in states if "change" in state)
    return {
        "anchor, B": round(anchors / weights, 2),
        "change, B": round(changes / weights, 2),
        "peak of a step, B": round(peak_of(optimizer.step) / weights, 3),
        "one tensor, the largest, B": round(largest / weights, 3),
    }


def peak_of(step: Callable[[], Any]) -> int:
    """Bytes that a step allocates in passing, at most at once."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as record:
        step()
    now = peak = 0
    for event in sorted(_allocations(record), key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _allocations(record: torch.profiler.profile) -> list[Any]:
    events = record.profiler.kineto_results.events()
    return [event for event in events if event.name() == "[memory]"]


def _setting(options: dict[str, str]) -> str:
    return ", ".join(f"`{key}={value!r}`" for key, value in options.items()) or "default"


TABLES = {"models": models_table, "growth": growth_table, "iterations": iterations_table, "compiled": compiled_table}
TABLES["memory"] = memory_table
GPU_TABLES = {"models": models_table, "graphs": graphs_table, "iterations": iterations_table, "memory": memory_table}
GPU_TABLES["compiled"] = compiled_table


def markdown(table: list[dict[str, Any]]) -> str:
    """A table in Markdown; of times: milliseconds of the first contender, multiples of it for the others."""
    if "seconds" not in table[0]:
        rows = [table[0].keys(), ["---"] * len(table[0]), *(line.values() for line in table)]
        return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
    labels = [key for key in table[0] if key != "seconds"]
    names = list(dict.fromkeys(name for line in table for name in line["seconds"]))
    lines = [
        "| " + " | ".join([*labels, f"{names[0]}, ms", *names[1:]]) + " |",
        "|---" * (len(labels) + len(names)) + "|",
    ]
    for line in table:
        base = line["seconds"][names[0]]
        ratios = [f"{line['seconds'][n] / base:.2f}x" if n in line["seconds"] else "" for n in names[1:]]
        cells = [f"{line[key]:,}" if key == "weights" else str(line[key]) for key in labels]
        lines.append("| " + " | ".join([*cells, f"{base * 1e3:.1f}", *ratios]) + " |")
    return "\n".join(lines)


def write_docs(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of this table."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = path.read_text().split(begin)
    path.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices={**TABLES, **GPU_TABLES}, nargs="+", help="some of the tables")
    parser.add_argument("--rounds", type=int, default=15, help="times that each contender has its turn")
    parser.add_argument("--threads", type=int, nargs="+", help="of torch; each makes a line (default: 1 2; GPU: 1)")
    parser.add_argument("--json", type=Path, help="write all medians, in seconds, to this file")
    parser.add_argument("--docs", type=Path, help="put the tables between the markers in this Markdown file")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where weights and gradients are")
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here.")
    global device
    device = torch.device(arguments.device)
    tables, numbers = GPU_TABLES if on_gpu else TABLES, arguments.threads or ([1] if on_gpu else [1, 2])
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if on_gpu:
        machine = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    results: dict[str, Any] = {"machine": machine, "rounds": arguments.rounds}
    for name in arguments.only or [name for name in tables if not (on_gpu and name == "compiled")]:
        if name not in tables:
            parser.error(f"--only {name}: there is no such table of {'a GPU' if on_gpu else 'the CPU'}.")
        results[name] = tables[name](arguments.rounds, numbers)
        print(f"\n{name}\n\n{markdown(results[name])}\n", flush=True)
        if arguments.docs:
            text = f"{machine}; medians of {arguments.rounds} rounds.\n\n{markdown(results[name])}"
            write_docs(arguments.docs, f"gpu {name}" if on_gpu else name, text)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
