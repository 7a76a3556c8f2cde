"""What is printed for readers says what the kernel computes."""

import math

import pytest
import torch

import flowopt as fo
from flowopt.kernels import UnfitError
from flowopt.registry import FLOWS
from tests.kernels import losses
from tests.reference.states import evaluation_of

ROSENBROCK = fo.problems.rosenbrock()
START = torch.tensor([[-1.5, 1.0], [0.0, 0.5]], dtype=torch.float64)
NOISY = [name for name, entry in FLOWS.items() if entry.build().noisy]


def _described(flow, scheme, problem=ROSENBROCK, start=START, step_size=0.01, **settings):
    return fo.describe_kernel(flow, scheme, problem, start, step_size=step_size, **settings)


def _python(line):
    """A printed line with names that Python has."""
    return line.replace("'", "_new").replace("%", "local_")


def _run(program, numbers):
    """Carries out what is printed, as a reader would; returns all values."""
    functions = {"sqrt": math.sqrt, "exp": math.exp, "expm1": math.expm1, "abs": abs}
    values = {**functions, "float64": float, **numbers}
    for line in program.splitlines():
        if line == "# the next step starts from":
            break
        if line and not line.startswith("#"):
            name, _, right = _python(line).partition(" = ")
            values[name] = eval(right, {}, values)
    return values


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in NOISY])
def test_carrying_out_the_lines_by_hand_is_a_step(name):
    flow, word, step_size = FLOWS[name].build(), FLOWS[name].words[0], 0.01
    arguments = {"step_size": step_size, "compile": False}
    scheme = fo.Splitting(word)
    before = fo.integrate(flow, scheme, ROSENBROCK, START, steps=3, **arguments)
    after = fo.integrate(flow, scheme, ROSENBROCK, before.state, steps=1, **arguments)
    state, gradient = before.state, ROSENBROCK.gradient(before.position)
    numbers = {k: float(v) for k, v in flow.hyperparameters.items()}
    numbers |= {"t": float(state.time[1]), "step": 3, "gradients": 4, "last_step": 4}
    numbers |= {"rejected": 0, "products": 0, "loss": float(before.loss[1]), "step_size": step_size}
    numbers |= {f"g_{i}": float(gradient[1, i]) for i in range(2)}
    numbers |= {s: float(v[1]) for s, v in state.scalars.items()}
    solution = evaluation_of(ROSENBROCK, state.position, flow).damped or ()
    numbers |= {f"damped_{i}": float(leaf[1]) for i, leaf in enumerate(solution)}
    for variable, leaves in state.variables.items():
        numbers |= {f"{variable}_{i}": float(leaf[1]) for i, leaf in enumerate(leaves)}
    values = _run(_described(flow, scheme).program, numbers)
    assert values["goes_on"] is False
    assert values["loss_new"] == pytest.approx(float(after.loss[1]), rel=1e-12)
    for variable, leaves in after.state.variables.items():
        for i, leaf in enumerate(leaves):
            assert values[f"{variable}_{i}_new"] == pytest.approx(float(leaf[1]), rel=1e-12)


def test_what_is_shared_is_computed_once_per_step():
    text = _described(fo.flows.adam(), fo.Splitting("TMVA")).program
    shared = text.partition("# once per step\n")[2].partition("\n\n")[0]
    assert "u_m' = " in shared
    assert "theta_0'" not in shared


@pytest.mark.parametrize("name", NOISY)
def test_noise_is_one_line_and_not_its_generator(name):
    flow, word = FLOWS[name].build(), FLOWS[name].words[0]
    text = _described(flow, fo.Splitting(word)).program
    driven = {term.letter for term in flow.equations.terms if term.diffusion}
    draws = sum(letter in driven for letter in word)
    assert text.count("= normal(substep") == ROSENBROCK.dim * draws
    assert ">>" not in text


def test_each_name_is_given_once():
    text = _described(fo.flows.langevin(friction=1.0, temperature=0.1), fo.Splitting("BAOAB"))
    steps = str(text).partition("# the next step starts from")[0]
    names = [line.partition(" = ")[0] for line in steps.splitlines() if " = " in line]
    assert len(names) == len(set(names))


def test_what_a_loss_closes_over_and_a_stop_has_are_named():
    problem = losses.Scaled(torch.tensor(2.0, dtype=torch.float64))
    text = _described(
        fo.flows.gradient_flow(), fo.Euler(), problem, stop=fo.stop.gradient(1e-6)
    ).program
    assert "data_0" in text
    assert "stop_limit" in text


def test_controls_that_reject_are_described():
    text = _described(
        fo.flows.gradient_flow(),
        fo.RungeKutta("dopri5"),
        step_size=None,
        control=fo.ErrorControl(rtol=1e-6, atol=1e-6),
    ).program
    assert "control_rtol" in text
    assert "rejected' = " in text


def test_the_code_is_that_of_the_loop():
    assert "define i64 @run(" in _described(fo.flows.gradient_flow(), fo.Euler()).llvm


def test_a_step_that_does_not_fit_says_why():
    with pytest.raises(UnfitError, match="value of a tensor"):
        _described(fo.flows.gradient_flow(), fo.Euler(), losses.Plain(losses.branching))
