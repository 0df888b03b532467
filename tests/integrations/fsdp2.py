"""What test_trainers.py runs in two processes: transformers' Trainer with its own FSDP2 setting, on a CPU.

accelerate offers FSDP2 to accelerators alone: it is told that this process has one. All else is as on GPUs.
"""

import os
import signal
import traceback

import peft
import torch
import torch._dynamo
import torch.distributed as dist
import torch.distributed.fsdp
import transformers
from accelerate import PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from ftp_cl.integrations import FTPTrainerMixin

LAYER = "LlamaDecoderLayer"


class FTPTrainer(FTPTrainerMixin, transformers.Trainer):
    """As in docs/trainers.md."""


def trainer(folder, name, lora, sharded):
    arguments = transformers.TrainingArguments(
        str(folder / name),
        per_device_train_batch_size=4 if sharded else 8,  # the same images a step in one process and in two
        num_train_epochs=2,
        save_steps=2,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        fsdp=sharded,
        fsdp_config={"version": 2, "transformer_layer_cls_to_wrap": [LAYER]} if sharded else None,
    )
    if sharded:
        arguments.device  # noqa: B018  # begins the group of processes
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=2))
    if lora:
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    tokens = [torch.tensor([1 + i % 7, i % 5, 3, i % 2]) for i in range(24)]
    data = [{"input_ids": own, "labels": own} for own in tokens]
    return FTPTrainer(model=model, args=arguments, train_dataset=data, ftp_options={"exclude": "*lm_head*"})


def whole(weights):
    return weights.full_tensor() if isinstance(weights, DTensor) else weights.detach()


def main(folder):
    for lora in (False, True):
        name = "lora" if lora else "full"
        trained = trainer(folder, name, lora, sharded=True)
        trained.train()
        assert trained.accelerator.is_fsdp2 and any(isinstance(p, DTensor) for p in trained.model.parameters())
        resumed = trainer(folder, name, lora, sharded=True)
        resumed.train(resume_from_checkpoint=str(folder / name / "checkpoint-2"))
        weights = {key: whole(value) for key, value in trained.model.named_parameters()}
        for key, value in resumed.model.named_parameters():
            assert torch.equal(whole(value), weights[key]), key
        assert resumed.ftp.radii() == trained.ftp.radii()
        held = trained.ftp.summary()  # in all processes
        assert held and all(row["max_distance"] <= row["radius"] * 1.001 + 1e-6 for row in held.values())
        if dist.get_rank() == 0:
            torch.save({"weights": weights, "radii": trained.ftp.radii()}, folder / f"{name}.pt")
    dist.destroy_process_group()


def hold(rank, port, folder):
    """In a forked process of two, which ends here: with status 0 if all of this holds."""
    status = 1
    signal.alarm(300)
    torch.set_num_threads(1)  # makes the threads anew of which a fork has none
    try:
        AcceleratorState._reset_state(reset_partial_state=True), GradientState._reset_state()
        given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        given |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}  # as torchrun sets them
        os.environ.update({name: str(value) for name, value in given.items()})
        main(folder)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
