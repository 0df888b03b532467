"""FTP in other people's training loops, as docs/trainers.md shows: resumed training ends as uninterrupted training."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ftp_cl.optim import FTP

STEPS = 6


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


@pytest.mark.filterwarnings("ignore")  # of packages that are not ours
@pytest.mark.slow
def test_transformers_trainer(tmp_path):
    transformers = pytest.importorskip("transformers")

    class FTPTrainer(transformers.Trainer):
        def create_optimizer(self, *args, **kwargs):
            if self.optimizer is None:
                optimizer = super().create_optimizer(*args, **kwargs)
                self.ftp = FTP(self.model, exclude="classifier").attach(optimizer)
            return self.optimizer

    def make_trainer():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            save_steps=2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        )
        data = [{"input_ids": torch.tensor([1 + i % 7, i % 5, 3]), "labels": torch.tensor(i % 2)} for i in range(24)]
        model = transformers.BertForSequenceClassification(config)
        return FTPTrainer(model=model, args=arguments, train_dataset=data)

    whole = make_trainer()
    whole.train()
    assert {int(state["steps"]) for state in whole.ftp.state_dict()["tensors"].values()} == {STEPS}
    resumed = make_trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_ends_alike(resumed.model, whole.model, resumed.ftp, whole.ftp)


def test_accelerate(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    batches = list(DataLoader(make_data(), batch_size=4))

    def prepare():
        accelerator = accelerate.Accelerator(cpu=True)
        model = make_net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        ftp = FTP(model, exclude="2").attach(optimizer)
        return accelerator, *accelerator.prepare(model, optimizer), ftp

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
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = make_net()
            self.ftp = FTP(self, exclude="net.2")

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            self.ftp.attach(optimizer)
            return optimizer

        def training_step(self, batch, index):
            images, labels = batch
            return nn.functional.cross_entropy(self.net(images), labels)

    def fit(checkpoint=None):
        module = Module()
        keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            callbacks=[keep],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(make_data(), batch_size=4), ckpt_path=checkpoint)
        return module

    whole = fit()
    resumed = fit(tmp_path / "epoch=0.ckpt")
    assert_ends_alike(resumed, whole, resumed.ftp, whole.ftp)


def test_lightnings_wrapper_is_its_optimizer():
    pytest.importorskip("lightning")
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
