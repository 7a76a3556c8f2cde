"""Steps like the one before: the same numbers as of an optimizer that asks everything anew."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import flowopt as fo
from flowopt.kernels.native.memory import layout as layouts
from flowopt.kernels.native.memory.layout import layout
from tests.kernels.twins import METHODS, SHAPES, Side, Twins, needs_memory

pytestmark = needs_memory


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_repeated_steps_equal_those_that_ask_anew(
    method: str, groups: int, monkeypatch: pytest.MonkeyPatch
):
    twins = Twins(monkeypatch, method, groups)
    for _ in range(7):
        twins.step()
    assert twins.repeated == [False] * 2 + [True] * 5
    twins.check()
    assert twins.sides[0].group["step"] == 7


def _data_elsewhere(side: Side) -> None:
    side.parameters[0].data = side.parameters[0].data.clone()


def _strided_parameter(side: Side) -> None:
    side.parameters[0].data = side.parameters[0].data.t().contiguous().t()


def _replaced_in_the_same_memory(side: Side) -> None:
    side.parameters[0] = nn.Parameter(side.parameters[0].data)
    side.parameters[0].grad = torch.ones(SHAPES[0])
    side.group["params"][0] = side.parameters[0]


def _appended(side: Side) -> None:
    side.parameters.append(nn.Parameter(torch.ones(3)))
    side.group["params"].append(side.parameters[-1])


def _other_list(side: Side) -> None:
    side.group["params"] = side.group["params"][:-1]


def _no_list(side: Side) -> None:
    side.group["params"] = tuple(side.group["params"])


def _added_group(side: Side) -> None:
    side.parameters.append(nn.Parameter(torch.ones(3)))
    side.optimizer.add_param_group({"params": side.parameters[-1:]})


def _state_elsewhere(side: Side) -> None:
    own = side.optimizer.state[side.parameters[0]]
    own["m"] = own["m"] + 1


def _state_of_another_dict(side: Side) -> None:
    parameter = side.parameters[0]
    side.optimizer.state[parameter] = copy.deepcopy(side.optimizer.state[parameter])


def _state_forgotten(side: Side) -> None:
    del side.optimizer.state[side.parameters[-1]]


def _variable_forgotten(side: Side) -> None:
    del side.optimizer.state[side.parameters[0]]["m"]


def _own_clock(side: Side) -> None:
    clock = side.optimizer.state[side.parameters[0]]["clock"]
    side.optimizer.state[side.parameters[0]]["clock"] = {**clock, "step": 1, "time": 0.01}


def _reloaded(side: Side) -> None:
    side.optimizer.load_state_dict(copy.deepcopy(side.optimizer.state_dict()))


def _copied_late(side: Side) -> None:
    side.late = torch.ops.aten._lazy_clone(side.parameters[0].detach())
    side.before = side.late.clone()


CHANGES = [
    *(_data_elsewhere, _strided_parameter, _replaced_in_the_same_memory, _appended, _other_list),
    *(_added_group, _state_elsewhere, _state_of_another_dict, _state_forgotten, _own_clock),
    *(_variable_forgotten, _no_list),
    *(_reloaded, _copied_late),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_step_after_a_change_asks_anew(change: Callable, monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    twins.both(change)
    twins.step()
    assert twins.repeated[-1] is False
    twins.step()
    twins.step()
    twins.check()


def test_what_is_copied_late_stays_as_it_was(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    twins.both(_copied_late)
    twins.step()
    for side in twins.sides:
        assert torch.equal(side.late, side.before)
        assert not torch.equal(side.parameters[0], side.before)


def _transposed(gradient: Tensor) -> Tensor:
    return gradient.t().contiguous().t() if gradient.ndim > 1 else gradient


def _negative(gradient: Tensor) -> Tensor:
    return torch.complex(gradient, -gradient).conj().imag


def _of_numpy(gradient: Tensor) -> Tensor:
    return torch.from_numpy(gradient.numpy().copy())


def _none(gradient: Tensor) -> None:
    return None


GRADIENTS = [_transposed, _negative, _of_numpy, _none, nn.Parameter]


# A single element too, whose strides say nothing.
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("form", GRADIENTS, ids=lambda form: form.__name__)
def test_gradients_of_another_form_are_seen(
    form: Callable, place: int, monkeypatch: pytest.MonkeyPatch
):
    twins = Twins(monkeypatch)
    twins.begin()
    gradient = torch.randn(SHAPES[place], generator=twins.generator)
    for side in twins.sides:
        side.parameters[place].grad = form(gradient)
    twins.move()
    twins.check()
    as_before = form is nn.Parameter or (form is _transposed and place == 1)
    assert twins.repeated[-1] is as_before


def test_a_parameter_of_fewer_elements_is_seen(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch, "SGD")
    twins.begin()
    for side in twins.sides:
        whole = side.parameters[5].data
        side.parameters[5].data = whole[:10]
        side.parameters[5].grad, side.whole = torch.ones(10), whole
    twins.move()
    assert twins.repeated[-1] is False
    assert torch.equal(*(side.whole for side in twins.sides))
    twins.check()


@pytest.mark.parametrize("lender", [0, 5], ids=["own parameter", "another one"])
def test_a_gradient_in_memory_that_is_written_is_refused(
    lender: int, monkeypatch: pytest.MonkeyPatch
):
    twins = Twins(monkeypatch)
    twins.begin()
    for side in twins.sides:
        lent = side.parameters[lender].detach().flatten()
        side.parameters[0].grad = lent[:12].view(SHAPES[0])
        with pytest.raises(fo.errors.CompatibilityError, match="share memory"):
            side.optimizer.step()
    twins.check()


def test_a_state_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    for side in twins.sides:
        side.optimizer.state[side.parameters[0]]["m"].resize_(4, 3)
        with pytest.raises(fo.errors.CompatibilityError, match="of one shape"):
            side.optimizer.step()
    twins.check()


def test_a_gradient_whose_memory_was_given_back_is_refused(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    for side in twins.sides:
        side.parameters[0].grad.untyped_storage().resize_(0)
        with pytest.raises(fo.errors.CompatibilityError, match="compile=True"):
            side.optimizer.step()
    twins.check()


def test_sparse_gradients_are_refused_after_repeated_steps(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    versions = [parameter._version for parameter in twins.sides[0].parameters]
    for side in twins.sides:
        side.parameters[0].grad = torch.ones(SHAPES[0]).to_sparse()
        with pytest.raises(fo.errors.CompatibilityError, match="sparse"):
            side.optimizer.step()
    twins.check()
    assert [parameter._version for parameter in twins.sides[0].parameters] == versions


def test_versions_rise_once_per_step(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    for number in range(5):
        versions = [parameter._version for parameter in twins.sides[0].parameters]
        twins.step()
        after = [parameter._version for parameter in twins.sides[0].parameters]
        assert after == [version + 1 for version in versions], number


def test_many_dimensions_ask_anew(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch, shapes=[(2, 1, 2, 1, 2, 1)])
    for _ in range(4):
        twins.step()
    assert not any(twins.repeated)
    twins.check()


@pytest.mark.parametrize("wrong", ["nothing", "twice"])
def test_a_layout_that_is_not_found_once_is_none(wrong: str, monkeypatch: pytest.MonkeyPatch):
    def places(*_: object) -> list[int]:
        return [] if wrong == "nothing" else [8, 16]

    monkeypatch.setattr(layouts._Memory, "places", places)
    layout.cache_clear()
    try:
        assert layout() is None
    finally:
        layout.cache_clear()


def test_memory_that_is_not_there_holds_nothing():
    with open(layouts.MEMORY, "rb", buffering=0) as memory:
        assert layouts._Memory(memory.fileno()).numbers(8, 64, "Q") == {}
