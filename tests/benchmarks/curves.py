"""Loss curves with our Adam in place of torch's: `python -m tests.benchmarks.curves`.

Every entrant trains the same network on the same minibatches. In exact arithmetic all curves are
one; how far rounding drives them apart is measured between torch's own two Adams, step by step and
fused, beside which ours stand.
"""

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import flowopt as fo
from studies.common.data import load

LR = 1e-3
TYPES = {"float64": torch.float64, "float32": torch.float32}
# After how many steps the table says how far curves are apart.
SHOWN = (10, 50, 100, 200)
Build = Callable[[Iterable], torch.optim.Optimizer]
REFERENCE: Build = partial(torch.optim.Adam, lr=LR, foreach=False)
ENTRANTS: dict[str, Build] = {
    "torch, fused": partial(torch.optim.Adam, lr=LR, fused=True),
    "flowopt, lists": partial(fo.optim.Adam, lr=LR),
    "flowopt, compile=True": partial(fo.optim.Adam, lr=LR, compile=True),
}


def small_cnn() -> nn.Module:
    """Two convolutions and a linear layer for MNIST, 9098 parameters."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(784, 10)),
    )


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which drops every other pixel and adds empty channels."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.stride, self.added = after // before, after - before
        self.path = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=self.stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(rows, before, side, side) → (rows, after, side/stride, side/stride)."""
        shortcut = images[:, :, :: self.stride, :: self.stride]
        shortcut = pad(shortcut, (0, 0, 0, 0, self.added // 2, self.added // 2))
        return torch.relu(self.path(images) + shortcut)


def resnet20() -> nn.Module:
    """The residual network of 20 layers for CIFAR-10 (He et al. 2016), 270 thousand parameters."""
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Residual(*pair) for pair in pairwise(widths)]
    return nn.Sequential(
        *(nn.Unflatten(1, (3, 32, 32)), nn.Conv2d(3, 16, 3, padding=1, bias=False)),
        *(nn.BatchNorm2d(16), nn.ReLU(), *blocks),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


NETWORKS = {"small CNN": ("mnist", small_cnn), "ResNet-20": ("cifar10", resnet20)}


def curve(
    build: Build, network: Callable[[], nn.Module], data: tuple[Tensor, Tensor], rows: Tensor
) -> Tensor:
    """Losses of a training run, (steps,), float64.

    Args:
        build: Makes the optimizer.
        network: Makes the network, the same at every call.
        data: Inputs, of the type in which to train, and labels.
        rows: (steps, batch), those of each minibatch.
    """
    torch.manual_seed(0)
    module = network().to(data[0].dtype)
    optimizer, losses = build(module.parameters()), []
    for chosen in rows:
        optimizer.zero_grad()
        loss = cross_entropy(module(data[0][chosen]), data[1][chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().double())
    return torch.stack(losses)


def differences(
    network: Callable[[], nn.Module], data: tuple[Tensor, Tensor], rows: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The reference's losses, and for each entrant how far its own were from them up to a step."""
    expected = curve(REFERENCE, network, data, rows)
    found = {
        name: (curve(build, network, data, rows) - expected).abs().cummax(0).values
        for name, build in ENTRANTS.items()
    }
    return expected, found


def main() -> None:
    """Prints how far the curves are apart."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.curves")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16, help="rows of a minibatch (default 16)")
    parser.add_argument("--network", choices=NETWORKS, nargs="*", default=list(NETWORKS))
    parser.add_argument("--dtype", choices=TYPES, nargs="*", default=list(TYPES))
    arguments = parser.parse_args()
    shown = [step for step in SHOWN if step < arguments.steps] + [arguments.steps]
    print(f"| network, type | loss | entrant | {' | '.join(map(str, shown))} steps |")
    print(f"|---|---|---|{'--:|' * len(shown)}")
    for name in arguments.network:
        source, network = NETWORKS[name]
        data = load(source)
        generator = torch.Generator().manual_seed(1)
        shape = (arguments.steps, arguments.batch)
        rows = torch.randint(len(data.train_labels), shape, generator=generator)
        used, places = rows.unique(return_inverse=True)
        inputs, labels = data.train_inputs[used], data.train_labels[used]
        for dtype in arguments.dtype:
            pair = inputs.to(TYPES[dtype]), labels
            losses, found = differences(network, pair, places)
            fell = f"{losses[:10].mean():.2f} → {losses[-10:].mean():.2f}"
            for entrant, apart in found.items():
                values = " | ".join(f"{apart[step - 1]:.0e}" for step in shown)
                print(f"| {name}, {dtype} | {fell} | {entrant} | {values} |", flush=True)


if __name__ == "__main__":
    main()
