"""Operations that move, make and sum numbers against torch, one function each."""

import pytest
import torch
from torch.nn import functional as F

from flowopt.kernels import UnfitError
from flowopt.kernels.tracing.trace import trace
from tests.kernels.machinery import assert_equal, by_kernel

TABLE = torch.tensor([3.0, 1.0, -2.0, 7.0, 0.5], dtype=torch.float64)
PLACES = torch.tensor([2, 0, 1])
MATRIX = torch.arange(6, dtype=torch.float64).reshape(3, 2) / 7
TARGETS = torch.tensor([1])


def _slice_assigned(x):
    y = x.clone()
    y[:, 1:] *= 2
    y[:, 0] = y[:, 2]
    y.view(-1)[3] += 1
    return y


def _alias_written(x):
    y = x * 1
    row = y.view(2, 2).t()
    row.add_(1)
    row[0].mul_(row[1])
    return y


def _out_of_place_gradient(x):
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        y = leaf * 1
        y[:, 0] = leaf[:, 1] ** 2
        return torch.autograd.grad((y**2).sum(), leaf)[0]


MOVES = {
    "unbind stack": lambda x: torch.stack(x.unbind(-1)[::-1], -1),
    "slices": lambda x: x[:, 1:3] - x[:, :2],
    "steps": lambda x: x[:, ::2],
    "negative index": lambda x: x[:, -1],
    "expand": lambda x: x[:, None, :].expand(-1, 3, -1)[:, 2],
    "permute": lambda x: x.reshape(1, 2, 2).permute(0, 2, 1).reshape(1, 4),
    "cat": lambda x: torch.cat([x, -x], -1),
    "split": lambda x: x.split([1, 3], -1)[1],
    "chunk": lambda x: x.chunk(2, -1)[1],
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: x.roll(1, -1),
    "repeat": lambda x: x.repeat(1, 2),
    "diagonal": lambda x: x.reshape(1, 2, 2).diagonal(dim1=-2, dim2=-1),
    "index": lambda x: x[:, PLACES],
    "list index": lambda x: x[:, [3, 1]],
    "gather": lambda x: x.gather(1, PLACES[None]),
    "gather at computed places": lambda x: x.gather(1, (x[:, :2] > 0).to(torch.int64)),
    "scatter at computed places": lambda x: torch.zeros_like(x).scatter_add(
        1, (x > 0).to(torch.int64), x
    ),
    "table": lambda x: TABLE[(x * 2).to(torch.int64).clamp(-5, 4)],
    "matrix table": lambda x: MATRIX[(x > 0).to(torch.int64), (x > 1).to(torch.int64)],
    "mask": lambda x: torch.where(x > 0, x, TABLE[1:]),
    "slice assignment": _slice_assigned,
    "writing through aliases": _alias_written,
    "gradient through a slice assignment": _out_of_place_gradient,
    "zeros": lambda x: torch.zeros_like(x) + torch.ones(4) + torch.full((4,), 2.0),
    "arange": lambda x: x * torch.arange(4),
    "triangle": lambda x: (x[:, :, None] * x[:, None]).tril(),
}
SUMS = {
    "sum": lambda x: x.sum(-1),
    "sum of all": lambda x: (x * x).sum().expand(1),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "product": lambda x: x.prod(-1),
    "variance": lambda x: x.var(-1),
    "largest": lambda x: x.amax(-1) - x.amin(-1),
    "cumulative": lambda x: x.cumsum(-1),
    "any": lambda x: (x > 0).any(-1),
    "all": lambda x: (x > -1).all(-1),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "softmax": lambda x: x.softmax(-1),
    "log softmax": lambda x: x.log_softmax(-1),
    "matrix": lambda x: x[:, :3] @ MATRIX,
    "vector": lambda x: MATRIX @ x[0, :2] + x[:, :3],
    "einsum": lambda x: torch.einsum("bi,ij,bj->b", x[:, :3], MATRIX, x[:, :2]),
    "layer norm": lambda x: F.layer_norm(x, (4,)),
    "cross entropy": lambda x: F.cross_entropy(x, TARGETS).expand(1),
    "binary cross entropy": lambda x: F.binary_cross_entropy_with_logits(
        x, (x > 0).to(x), reduction="none"
    ),
    "huber": lambda x: F.huber_loss(x, TABLE[1:].expand(1, 4), reduction="none"),
    "mean square": lambda x: F.mse_loss(x, TABLE[1:].expand(1, 4)).expand(1),
}


def _rows(count=19):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 4, generator=generator, dtype=torch.float64)


def _one_by_one(function, x):
    return torch.cat([function(row[None]) for row in x])


@pytest.mark.parametrize("name", MOVES)
def test_numbers_are_moved_as_in_torch(name):
    assert_equal(by_kernel(MOVES[name], _rows()), _one_by_one(MOVES[name], _rows()))


@pytest.mark.parametrize("name", SUMS)
def test_numbers_are_summed_as_in_torch(name):
    ours, theirs = by_kernel(SUMS[name], _rows()), _one_by_one(SUMS[name], _rows())
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)


COUNTER = torch.zeros(4, dtype=torch.float64)


def _written_to(x):
    COUNTER.add_(1)
    return x + COUNTER


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x + torch.rand(4), "random"),
        (lambda x: x if x.sum() > 0 else -x, "value of a tensor"),
        (lambda x: x * x[0].tolist()[0], "value of a tensor"),
        (_written_to, "closes over"),
        (lambda x: x.add_(1), "closes over or is given"),
        (lambda x: x[:, x.argmax(-1)], "no scalar form"),
        (lambda x: torch.fft.fft(x).real, "no scalar form"),
        (lambda x: torch.from_numpy(x.numpy()), "traced"),
        (lambda x: (x[:, None] * torch.ones(30_000)[:, None]).sum(-2), "operations"),
    ],
    ids=["random", "branch", "tolist", "captured", "input", "argmax", "fft", "numpy", "large"],
)
def test_what_has_no_scalar_form_is_refused_in_words(function, words):
    with pytest.raises(UnfitError, match=words):
        trace(lambda x: [function(x)], [_rows(1)], [True])
