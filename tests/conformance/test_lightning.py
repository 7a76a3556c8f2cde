"""Lightning's Trainer, which calls closures of its own: the same steps as a loop by hand."""

import logging

import lightning
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import flowopt as fo
from tests.reference.training import closure_of, flat_parameters, small_data, small_network

EPOCHS, BATCH = 3, 10
FLOW = fo.flows.langevin(friction=1.0, temperature=1e-3)


def langevin(word):
    return lambda p: fo.optim.FlowOptimizer(p, FLOW, fo.Splitting(word), lr=0.1, seed=1)


# How often a step calls the closure: once, once more with a gradient at its end, several times.
OPTIMIZERS = {
    "Adam": lambda p: fo.optim.Adam(p, lr=1e-2),
    "Adam, compiled": lambda p: fo.optim.Adam(p, lr=1e-2, compile=True),
    "Langevin": lambda p: fo.optim.Langevin(p, seed=1),
    "BAOAB": langevin("BAOAB"),
    "ABOBA": langevin("ABOBA"),
    "Runge-Kutta": lambda p: fo.optim.FlowOptimizer(
        p, fo.flows.gradient_flow(), fo.RungeKutta("rk4"), lr=0.1
    ),
    "EnergyAdam": lambda p: fo.optim.EnergyAdam(p, lr=1e-2),
}


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def batches():
    return DataLoader(TensorDataset(*small_data()), batch_size=BATCH)


class Classifier(lightning.LightningModule):
    """What a user writes."""

    def __init__(self, build):
        super().__init__()
        self.network, self.build = small_network(), build

    def training_step(self, batch, number):
        inputs, targets = batch
        return cross_entropy(self.network(inputs), targets)

    def configure_optimizers(self):
        optimizer = self.build(self.parameters())
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def trained(build, folder, epochs=EPOCHS, checkpoint=None, save=None, **options):
    module = Classifier(build)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(module, batches(), ckpt_path=checkpoint)
    if save:
        trainer.save_checkpoint(save)
    return flat_parameters(module)


def by_hand(build):
    network = small_network()
    optimizer = build(network.parameters())
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for _ in range(EPOCHS):
        for inputs, targets in batches():
            optimizer.step(closure_of(network, optimizer, inputs, targets))
        schedule.step()
    return flat_parameters(network)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trainer_steps_as_a_loop_by_hand(name, tmp_path):
    assert torch.equal(trained(OPTIMIZERS[name], tmp_path), by_hand(OPTIMIZERS[name]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trainer_goes_on_from_a_checkpoint_to_the_last_bit(name, tmp_path):
    build, file = OPTIMIZERS[name], tmp_path / "run.ckpt"
    trained(build, tmp_path, epochs=1, save=file)
    assert torch.equal(trained(build, tmp_path, checkpoint=file), trained(build, tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_accumulated_and_clipped_gradients_are_those_of_torch(tmp_path):
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}
    ends = [
        trained(lambda p, kind=kind: kind(p, lr=1e-2), tmp_path, **options)
        for kind in (fo.optim.Adam, torch.optim.Adam)
    ]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-13)
