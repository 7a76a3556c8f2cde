"""What every registered flow and scheme promises, unwritten."""

import copy
import itertools
import pickle

import numpy
import pytest
import sympy
import torch

import flowopt as fo
from flowopt.core.interfaces import LetterMove
from flowopt.optim import FlowOptimizer
from flowopt.registry import CONTROLS, FLOWS, METHODS, PROBLEMS, SCHEMES
from flowopt.symbolic.maps import letter_map
from tests.reference.pairs import CLOSURE_FREE, NOISE_FREE, NOISY, PAIRS, fits, in_turn
from tests.reference.states import (
    HILLS,
    GivenNormals,
    Loss,
    evaluation_of,
    flat,
    state_of,
)

STEPS = 8
# A vector register and some left over: torch computes the two by different code.
MEMBERS = 11


def starts(problem, members=MEMBERS):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(members, problem.dim, generator=generator, dtype=torch.float64)


def run(pair, problem, start, **settings):
    settings = {"step_size": pair.step_size, "steps": STEPS, **settings}
    return fo.integrate(pair.flow, pair.scheme, problem, start, **settings)


@pytest.mark.parametrize(("pair", "problem"), in_turn(NOISE_FREE))
def test_a_batch_is_its_members_run_alone(pair, problem):
    problem = PROBLEMS[problem]()
    start = starts(problem)
    together = flat(run(pair, problem, start).state)
    alone = torch.stack([flat(run(pair, problem, member).state) for member in start])
    # A member that diverges does so alone as well.
    torch.testing.assert_close(together, alone, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("pair", "problem"), in_turn(NOISY))
def test_a_member_with_noise_does_not_see_the_others(pair, problem):
    problem = PROBLEMS[problem]()
    start = starts(problem)
    together = flat(run(pair, problem, start).state)
    fewer = flat(run(pair, problem, start[:5]).state)
    alone = flat(run(pair, problem, start[0]).state)
    assert torch.equal(together[:5], fewer)
    assert torch.equal(together[0], alone)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_run_in_two_parts_is_the_run_in_one(pair):
    start = starts(HILLS, 3)
    whole = run(pair, HILLS, start)
    first = run(pair, HILLS, start, steps=3)
    second = run(pair, HILLS, first.state, steps=STEPS - 3)
    assert torch.equal(flat(whole.state), flat(second.state))
    assert torch.equal(whole.state.time, second.state.time)


class Recording:
    """Noise of zeros that keeps the keys it is asked for, and which leaves they are for."""

    def __init__(self, keys, places=None):
        self.keys, self.places = keys, places

    def normal(self, like, key):
        self.keys.append((self.places, int(key.step), key.substep))
        return tuple(torch.zeros_like(leaf) for leaf in like)

    def block(self, places, position):
        return Recording(self.keys, places)


@pytest.mark.parametrize("pair", NOISY, ids=str)
def test_every_draw_of_a_step_has_a_key_of_its_own(pair):
    keys = []
    run(pair, HILLS, torch.zeros(2, dtype=torch.float64), steps=1, noise=Recording(keys))
    assert len(set(keys)) == len(keys) > 0
    assert all(0 <= substep < 2**16 for _, _, substep in keys)


@pytest.mark.parametrize("pair", CLOSURE_FREE, ids=str)
def test_an_optimizer_makes_the_steps_of_integrate(pair):
    start = starts(HILLS, 1)[0]
    solution = run(pair, HILLS, start)
    coordinates = [torch.nn.Parameter(value.clone()) for value in start]
    optimizer = FlowOptimizer(
        coordinates, pair.flow, pair.scheme, lr=pair.step_size, seed=0, foreach=False
    )

    def closure():
        optimizer.zero_grad()
        loss = HILLS.loss(torch.stack(coordinates))
        loss.backward()
        return loss

    for _ in range(STEPS):
        if pair.flow.uses_loss:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    assert torch.equal(torch.stack(coordinates).detach(), solution.position)


class Counted(Loss):
    """A problem that counts how often its loss is differentiated."""

    def __init__(self, problem):
        super().__init__(problem.loss, problem.dim, problem.residuals)
        self.calls = 0

    def loss(self, theta):
        self.calls += theta.requires_grad
        return super().loss(theta)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_every_gradient_is_counted(pair):
    problem = Counted(HILLS)
    solution = run(pair, problem, starts(HILLS, 1)[0])
    assert solution.counts["gradients"].item() == problem.calls


def begins_away_from_the_known_gradient(pair):
    """Whether θ moves before the first gradient is used, as in ABOBA."""
    for move in getattr(pair.scheme, "moves", ()):
        if pair.flow.uses_gradient(move.letter):
            return False
        if pair.flow.moves_position(move.letter):
            return True
    return False


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_step_costs_the_gradients_that_its_scheme_claims(pair):
    solution = run(pair, HILLS, starts(HILLS, 1)[0])
    claim = pair.scheme.gradient_evaluations(pair.flow)
    # To observe the end of a step costs one more where the next step can not use it.
    observed = begins_away_from_the_known_gradient(pair)
    observed = observed and not pair.scheme.ends_with_gradient(pair.flow)
    assert solution.counts["gradients"].item() == 1 + STEPS * (claim + observed)


def letters():
    """Letters of flows in every way, those of methods as the methods take them."""
    flows = [
        (name, flow, letter, kind, parts)
        for name, flow in ((name, entry.build()) for name, entry in FLOWS.items())
        for letter, kind, parts in itertools.product(flow.letters, (None, "euler"), (1, 2))
    ]
    methods = [
        (f"method {name}", method.flow, *move[:3])
        for name, method in ((name, build()) for name, build in METHODS.items())
        for move in method.scheme.moves
    ]
    return [
        pytest.param(flow, letter, kind, parts, id=f"{name} {letter} {kind} 1/{parts}")
        for name, flow, letter, kind, parts in flows + methods
    ]


def random_values(names, shape=()):
    generator = numpy.random.default_rng(len(names))
    return {name: generator.uniform(0.1, 2.0, shape) for name in names}


@pytest.mark.parametrize(("flow", "letter", "kind", "parts"), letters())
def test_the_printed_code_of_a_letter_is_its_map(flow, letter, kind, parts):
    equations = flow.equations
    (term,) = [term for term in equations.terms if term.letter == letter]
    map_ = letter_map(term, kind, sympy.Rational(1, parts), flow.per_step)
    members = (7,)
    leaves = random_values([v.name for v in equations.variables], members)
    scalars = random_values([s.name for s in equations.scalars], members)
    hyperparameters = random_values(equations.hyperparameters)
    normals = random_values([f"normal of {v.name}" for v in map_.noise], members)
    (step_size,) = random_values(["step_size"]).values()

    state = state_of(
        {name: torch.from_numpy(value)[:, None] for name, value in leaves.items()},
        **{name: torch.from_numpy(value) for name, value in scalars.items()},
    )
    bound = flow.with_hyperparameters(**{n: float(v) for n, v in hyperparameters.items()})
    squares = Loss(lambda theta: (theta**2).sum(-1), 1, lambda theta: 2**0.5 * theta)
    evaluation = evaluation_of(squares, state.position, bound)
    after = bound.apply(
        LetterMove(letter, kind, parts, 0),
        state,
        torch.full(members, float(step_size), dtype=torch.float64),
        lambda _: evaluation,
        GivenNormals([(torch.from_numpy(value),) for value in normals.values()]),
    )

    values = {**leaves, **scalars, **hyperparameters, "step_size": step_size}
    values |= {"g": evaluation.gradient[0].numpy(), "L": evaluation.loss.numpy(), "t": 0.0}
    for variable, mean in map_.mean.items():
        expected = evaluate(mean, values)
        for _, amplitude in map_.noise.get(variable, ()):
            expected = (
                expected + evaluate(amplitude, values) * normals[f"normal of {variable.name}"]
            )
        found = after.scalars.get(variable.name)
        found = after.variables[variable.name][0] if found is None else found
        numpy.testing.assert_allclose(found.numpy(), expected, rtol=1e-14, atol=0)


def evaluate(formula, values):
    """A formula by sympy's own printer for numpy."""
    names = sorted(symbol.name for symbol in formula.free_symbols)
    symbols = {symbol.name: symbol for symbol in formula.free_symbols}
    # The states of the test above have one element, and its loss is θ², with second derivative 2.
    functions = {
        "phi1": lambda z: numpy.expm1(z) / z,
        "total": lambda value: value,
        "damped": lambda g, damping: g / (2 + damping),
    }
    modules = [functions, "numpy"]
    function = sympy.lambdify([symbols[name] for name in names], formula, modules)
    return function(*(values[name] for name in names))


# With time in units of 1/c: powers of c by which the loss and the hyperparameters grow so that
# the curve stays where it was.
POWERS = {
    "gradient_flow": (1, {}),
    "heavy_ball": (2, {"friction": 1}),
    "langevin": (2, {"friction": 1, "temperature": 2}),
    "momentum_ema": (1, {"rate": 1}),
    "nesterov": (2, {"friction": 1, "lookahead": -1}),
    "nesterov_ema": (1, {"rate": 1, "memory": 0}),
    "adagrad": (0, {"accumulation": -1, "eps": -1}),
}


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.name in POWERS], ids=str)
def test_a_change_of_the_unit_of_time_changes_no_position(pair):
    # A power of two: the change of unit makes no rounding error.
    unit = 4.0
    loss_power, powers = POWERS[pair.name]
    scaled = Loss(
        lambda theta: unit**loss_power * HILLS.loss(theta),
        residuals=lambda theta: unit ** (loss_power / 2) * HILLS.residuals(theta),
    )
    flow = pair.flow.with_hyperparameters(
        **{name: pair.flow.hyperparameters[name] * unit**power for name, power in powers.items()}
    )
    start = starts(HILLS)
    faster = run(pair._replace(flow=flow), scaled, start, step_size=pair.step_size / unit)
    assert torch.equal(faster.position, run(pair, HILLS, start).position)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_copy_of_flow_and_scheme_steps_identically(pair, duplicate):
    start = starts(HILLS, 2)
    flow, scheme = duplicate((pair.flow, pair.scheme))
    copied = pair._replace(flow=flow, scheme=scheme)
    assert torch.equal(run(pair, HILLS, start).position, run(copied, HILLS, start).position)


@pytest.mark.parametrize("name", FLOWS)
def test_every_word_of_a_flow_fits_it(name):
    assert all(fits(FLOWS[name].build(), fo.Splitting(word)) for word in FLOWS[name].words)


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_fits_some_flow(name):
    assert any(fits(entry.build(), SCHEMES[name]()) for entry in FLOWS.values())


@pytest.mark.parametrize("name", [n for n in CONTROLS if not CONTROLS[n](0.01).rejects])
def test_every_control_that_rejects_nothing_steps_as_far_as_it_says(name):
    problem = PROBLEMS["quadratic"]()
    control = CONTROLS[name](0.01)
    solution = fo.integrate(
        fo.flows.gradient_flow(),
        fo.RungeKutta("heun"),
        problem,
        starts(problem, 1)[0],
        control=control,
        steps=100,
        record={"step_size": 1},
    )
    total = solution.records["step_size"][:-1].sum()
    torch.testing.assert_close(solution.state.time, total, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_scheme_that_fits_its_flow(name):
    method = METHODS[name]()
    assert fits(method.flow, method.scheme)
    assert method.step_size.item() > 0


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_says_where_it_comes_from(name):
    assert FLOWS[name].build().equations.reference


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_prints_as_latex(name):
    flow = FLOWS[name].build()
    lines = flow.latex().splitlines()
    variables = (*flow.equations.variables, *flow.equations.scalars)
    assert len(lines) == 2 + len(variables) + len(flow.energies)


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_critical_point_has_the_value_and_curvatures_that_are_known(name):
    problem = PROBLEMS[name]()
    for point in problem.critical_points:
        position = torch.tensor(point.position, dtype=torch.float64)
        scale = max(1.0, *map(abs, point.eigenvalues))
        assert problem.gradient(position).abs().max() <= 1e-14 * scale * (1 + position.abs().max())
        assert problem.loss(position).item() == pytest.approx(point.value, rel=1e-14, abs=1e-14)
        hessian = torch.autograd.functional.hessian(problem.loss, position)
        expected = torch.tensor(point.eigenvalues, dtype=torch.float64)
        torch.testing.assert_close(
            torch.linalg.eigvalsh(hessian), expected, rtol=1e-12, atol=1e-12 * scale
        )
