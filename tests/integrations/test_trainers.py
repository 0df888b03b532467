"""FTP in other people's training loops, as docs/trainers.md shows: resumed training ends as uninterrupted training."""

import copy
import os
import runpy
import socket
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ftp_cl.integrations import FTPTrainerMixin, attach_ftp
from ftp_cl.optim import FTP

STEPS = 6
WORDS = ["red", "green", "blue", "grey", "cat", "dog", "cow", "hen"]
ARGUMENTS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "save_steps": 2,
    "use_cpu": True,
    "report_to": [],
    "disable_tqdm": True,
}


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def make_data():
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(24, 4, generator=generator), torch.randint(0, 3, (24,), generator=generator))


def assert_ends_alike(resumed, whole, resumed_ftp, whole_ftp):
    for got, expected in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(got, expected)
    assert resumed_ftp.radii() == whole_ftp.radii()
    assert all(row["max_distance"] <= row["radius"] * 1.001 + 1e-6 for row in whole_ftp.summary().values())


def bert(tmp_path, _):
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    data = [{"input_ids": torch.tensor([1 + i % 7, i % 5, 3]), "labels": torch.tensor(i % 2)} for i in range(24)]
    arguments = transformers.TrainingArguments(str(tmp_path), **ARGUMENTS)
    options = {"model": transformers.BertForSequenceClassification(config), "args": arguments, "train_dataset": data}
    return transformers.Trainer, {**options, "ftp_options": {"exclude": "classifier"}}


def bert_with_lora_in_8_bits(tmp_path, folder):
    """README's recipe, and an optimizer that loads its state in its own way."""
    import peft

    trainer, options = bert(tmp_path, folder)
    model = peft.get_peft_model(options["model"], peft.LoraConfig(r=2, task_type="SEQ_CLS"))
    arguments = type(options["args"])(str(tmp_path), **ARGUMENTS, optim="adamw_8bit", learning_rate=1e-2)
    return trainer, {**options, "model": model, "args": arguments, "ftp_options": {"exclude": "*modules_to_save*"}}


def llama(tmp_path, folder, lora=None):
    """TRL's trainer, whose data are texts."""
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments = trl.SFTConfig(str(tmp_path), **ARGUMENTS, max_length=8, learning_rate=1e-2)
    options = {
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "args": arguments,
        "train_dataset": Dataset.from_dict({"text": [" ".join(WORDS[i % 5 : 4 + i % 3]) for i in range(24)]}),
        "processing_class": AutoTokenizer.from_pretrained(folder),
    }
    return trl.SFTTrainer, {**options, "peft_config": lora, "ftp_options": {"exclude": ["*lm_head*", "*norm*"]}}


def llama_with_lora(tmp_path, folder):
    import peft

    trainer, options = llama(
        tmp_path, folder, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
    )
    return trainer, {**options, "ftp_options": {}}


@pytest.mark.filterwarnings("ignore")  # of packages that are not ours
@pytest.mark.slow
@pytest.mark.parametrize("make", [bert, bert_with_lora_in_8_bits, llama, llama_with_lora])
def test_trainers_of_transformers_and_trl(tmp_path, tiny_llama, make):
    def trainer():
        base, options = make(tmp_path, tiny_llama)

        class FTPTrainer(FTPTrainerMixin, base): ...

        return FTPTrainer(**options)

    whole = trainer()
    whole.train()
    assert {int(state["steps"]) for state in whole.ftp.state_dict()["tensors"].values()} == {STEPS}
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_ends_alike(resumed.model, whole.model, resumed.ftp, whole.ftp)
    kept = whole.ftp
    whole.train()  # again, with the optimizer that is there
    assert whole.ftp is kept and {int(s["steps"]) for s in kept.state_dict()["tensors"].values()} == {2 * STEPS}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_the_trainers_own_fsdp2_ends_as_one_process_and_resumes_alike(tmp_path):
    """On a CPU; fsdp2.py compares whole and resumed training. Forked, because imports take longer than all of it."""
    script = runpy.run_path(str(Path(__file__).with_name("fsdp2.py")))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = [os.fork() or script["hold"](rank, port, tmp_path) for rank in (0, 1)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    one_process = script["trainer"]
    for name in ("full", "lora"):
        sharded = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        alone = one_process(tmp_path, f"{name}_alone", lora=name == "lora", sharded=False)
        alone.train()
        assert alone.ftp.radii() == pytest.approx(sharded["radii"], rel=1e-3)
        assert max(sharded["radii"].values()) > 1e-4, "nothing was learned"
        for key, weights in alone.model.named_parameters():
            torch.testing.assert_close(sharded["weights"][key], weights.detach(), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_that_the_trainer_is_given_is_followed(tmp_path):
    base, options = bert(tmp_path, None)

    class FTPTrainer(FTPTrainerMixin, base): ...

    optimizer = torch.optim.SGD(options["model"].parameters(), lr=0.1)
    trainer = FTPTrainer(**options, optimizers=(optimizer, None))
    assert trainer.create_optimizer() is optimizer and trainer.ftp.is_attached_to(optimizer)
    trainer.is_deepspeed_enabled, trainer.ftp = True, None
    with pytest.raises(ValueError, match="does not work with DeepSpeed"):
        trainer.create_optimizer()


@pytest.mark.filterwarnings("ignore")
def test_radii_go_back_with_the_best_weights_and_a_new_model_is_projected(tmp_path):
    base, options = bert(tmp_path, None)

    class FTPTrainer(FTPTrainerMixin, base): ...

    best = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "learning_rate": 1e-2}
    arguments = {**ARGUMENTS, **best, "metric_for_best_model": "eval_worse"}
    options["args"] = type(options["args"])(str(tmp_path), **arguments)
    options["compute_metrics"] = lambda _: {"worse": -len(trainer.state.log_history)}  # the first is the best
    model = options.pop("model")
    options |= {"model_init": lambda: copy.deepcopy(model), "eval_dataset": options["train_dataset"][:4]}
    trainer = FTPTrainer(**options)
    for _ in range(2):  # the second time with another model
        trainer.train()
        assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
        assert {int(state["steps"]) for state in trainer.ftp.state_dict()["tensors"].values()} == {2}
        assert all(row["max_distance"] <= row["radius"] * 1.001 + 1e-6 for row in trainer.ftp.summary().values())
        assert trainer.ftp.is_attached_to(trainer.optimizer.optimizer)


def test_accelerate(tmp_path):
    import accelerate

    batches = list(DataLoader(make_data(), batch_size=4))

    def prepare():
        accelerator = accelerate.Accelerator(cpu=True)
        model = make_net()
        model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
        return accelerator, model, optimizer, attach_ftp(accelerator, model, optimizer, exclude="2")

    def train(accelerator, model, optimizer, some):
        for images, labels in some:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(model(images), labels))
            optimizer.step()

    accelerator, whole, optimizer, ftp = prepare()
    train(accelerator, whole, optimizer, batches[:3])
    accelerator.save_state(str(tmp_path))
    train(accelerator, whole, optimizer, batches[3:])

    accelerator, resumed, optimizer, resumed_ftp = prepare()
    accelerator.load_state(str(tmp_path))
    train(accelerator, resumed, optimizer, batches[3:])
    assert_ends_alike(resumed, whole, resumed_ftp, ftp)
    with pytest.raises(TypeError, match="only passes these calls on, attach to its attribute `optimizer`"):
        FTP(resumed).attach(optimizer)


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path):
    import lightning

    from ftp_cl.integrations import FTPCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = make_net()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

        def training_step(self, batch, index):
            images, labels = batch
            return nn.functional.cross_entropy(self.net(images), labels)

    def fit(module, callback, checkpoint=None, epochs=2):
        keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            callbacks=[keep, callback],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(make_data(), batch_size=4), ckpt_path=checkpoint)
        return module

    whole_ftp, resumed_ftp = FTPCallback(exclude="net.2"), FTPCallback(exclude="net.2")
    whole = fit(Module(), whole_ftp)
    resumed = fit(Module(), resumed_ftp, tmp_path / "epoch=0.ckpt")
    assert_ends_alike(resumed, whole, resumed_ftp.ftp, whole_ftp.ftp)
    start, ftp = whole.net[0].weight.detach().clone(), whole_ftp.ftp
    fit(whole, whole_ftp, epochs=1)
    assert whole_ftp.ftp is ftp and not torch.equal(start, whole.net[0].weight)
    distances = ftp.summary()["net.0.weight"]
    first = make_net()[0].weight  # the anchor of the first fit
    assert distances["max_distance"] == pytest.approx(float((whole.net[0].weight - first).abs().sum(1).max()), rel=1e-5)


def test_lightnings_wrapper_is_its_optimizer():
    from lightning.pytorch.core.optimizer import LightningOptimizer

    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    wrapper = LightningOptimizer(optimizer)
    ftp.attach(wrapper)
    assert ftp.is_attached_to(wrapper)
    ftp.attach(optimizer)
    ftp.detach()
    assert not optimizer._optimizer_step_post_hooks and not optimizer._optimizer_state_dict_post_hooks
