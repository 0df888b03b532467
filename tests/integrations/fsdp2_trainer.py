"""Run by test_trainers.py, in one process, then in two: fsdp2_trainer.py FOLDER PROCESSES."""

import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from ftp_cl.integrations import FTPTrainerMixin


class FTPTrainer(FTPTrainerMixin, Trainer): ...


def main(folder: Path) -> None:
    processes = int(sys.argv[2])
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    sharded = {"fsdp": "full_shard", "fsdp_config": {"fsdp_version": 2, "auto_wrap_policy": "NO_WRAP"}}
    arguments = TrainingArguments(
        str(folder / str(processes)),
        per_device_train_batch_size=4 // processes,
        max_steps=5,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        **(sharded if processes > 1 else {}),
    )
    data = [{"input_ids": torch.tensor([1 + i % 7, i % 5, 3]), "labels": torch.tensor(i % 2)} for i in range(24)]
    trainer = FTPTrainer(
        model=BertForSequenceClassification(config),
        args=arguments,
        train_dataset=data,
        ftp_options={"exclude": "classifier"},
    )
    trainer.train()
    weights = dict(trainer.model.named_parameters())
    assert processes == 1 or all(isinstance(weight, DTensor) for weight in weights.values())
    whole = {name: w.full_tensor() if isinstance(w, DTensor) else w for name, w in weights.items()}
    if processes == 1:
        torch.save(
            {"weights": {name: w.detach() for name, w in whole.items()}, "radii": trainer.ftp.radii()}, folder / "one"
        )
        return
    expected = torch.load(folder / "one")
    radii = trainer.ftp.radii()
    assert radii.keys() == expected["radii"].keys()
    for name, radius in expected["radii"].items():
        assert abs(radii[name] - radius) <= 1e-3 * radius, (name, radii[name], radius)
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(whole[name].detach(), weight, rtol=0, atol=1e-4)
    print("held", flush=True)


main(Path(sys.argv[1]))
