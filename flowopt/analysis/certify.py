"""Whether an energy never rises along a flow: proved, refuted by a point, or open."""

from dataclasses import dataclass
from typing import Literal

import sympy

from flowopt.analysis.proofs.conditions import Condition, exact
from flowopt.analysis.proofs.counterexample import Counterexample, counterexample, for_one_element
from flowopt.analysis.proofs.facts import Facts, facts_of
from flowopt.analysis.proofs.proof import NoProofError, Proof, prove_not_positive
from flowopt.errors import CompatibilityError, DefinitionError
from flowopt.flows import EquationFlow
from flowopt.symbolic.energy import energy_of, energy_rate
from flowopt.symbolic.functions import curvature, damped, laplacian, total
from flowopt.symbolic.language import g, symbol

Verdict = Literal["proved", "counterexample", "undecided"]


@dataclass(frozen=True)
class Certificate:
    """What is known about the sign of an energy's rate.

    Attributes:
        flow: Name of the flow.
        energy: Name of the energy.
        verdict: "proved": the energy never rises, at the flow's hyperparameters and at all others
            with their signs that satisfy the conditions; "counterexample": it rises at a point;
            "undecided": neither was found.
        rate: dE/dt, elementwise terms summed over elements; None where it is not derived.
        conditions: Inequalities between hyperparameters under which the proof holds.
        assumptions: Signs and solved variables that the argument uses.
        steps: The argument; for "undecided", where it stops.
        counterexample: A state of one element at which the rate is positive.
    """

    flow: str
    energy: str
    verdict: Verdict
    rate: sympy.Expr | None
    conditions: tuple[Condition, ...] = ()
    assumptions: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    counterexample: Counterexample | None = None

    def __str__(self) -> str:
        """The verdict, and why."""
        lines = [f"{self.flow}, energy {self.energy}: {self.summary}", f"  dE/dt = {self.rate}"]
        lines += [f"  given {assumption}" for assumption in self.assumptions]
        return "\n".join([*lines, *(f"  - {step}" for step in self.steps)])

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        if self.verdict == "proved":
            what = "conserved, proved" if self.rate == 0 else "never rises, proved"
            conditions = " and ".join(map(str, self.conditions))
            return f"{what} for {conditions}" if conditions else what
        if self.counterexample is not None:
            values = ", ".join(f"{n} = {v:g}" for n, v in self.counterexample.values.items())
            return f"may rise: dE/dt = {self.counterexample.rate:.3g} at {values}"
        return "undecided"


def certify(flow: EquationFlow, energy: str) -> Certificate:
    """Whether a declared energy never rises along a flow, at every state where its rate is defined.

    A proof concludes by signs of sums, products and squares, principal minors of quadratic forms,
    and a lemma on averages that start from zero; all in exact arithmetic. A counterexample is
    looked for with fixed random numbers and evaluated again to 40 digits.

    Args:
        flow: Hyperparameters have values, of which proofs use the signs and, as conditions,
            inequalities.
        energy: Name of a declared energy.

    Raises:
        DefinitionError: The flow declares no such energy.
        CompatibilityError: Hyperparameters are given as rate × step size.
    """
    if not isinstance(flow, EquationFlow):
        raise CompatibilityError(
            f"certify reads the equations of a flow, got {type(flow).__name__}: give a fo.Flow"
        )
    if flow.per_step:
        raise CompatibilityError(
            f"flow {flow.name!r} has {sorted(flow.per_step)} as rate × step size, and energy "
            f"{energy!r} changes in time: use flow.at_step_size(h)"
        )
    energy_of(flow.equations, energy)
    try:
        rate = energy_rate(flow.equations, energy)
    except DefinitionError as error:
        return Certificate(flow.name, energy, "undecided", None, steps=(str(error),))
    if rate.density.has(curvature) or rate.scalar.has(laplacian):
        why = "the rate needs second derivatives of the loss, which may have any sign"
        return Certificate(flow.name, energy, "undecided", rate=rate.expression, steps=(why,))
    facts = facts_of(flow)
    density, scalar = (_exact(part).xreplace(facts.zero) for part in (rate.density, rate.scalar))
    found = {"assumptions": facts.statements, "rate": rate.expression}
    if density.has(damped):
        density = _with_form(density, flow, facts)
        if density is None:
            why = "the rate holds solutions of systems, which may have any sign"
            return Certificate(flow.name, energy, "undecided", steps=(why,), **found)
        found["assumptions"] += ("the Gauss-Newton matrix has no negative eigenvalue",)
    try:
        proof = _proof(density, scalar, flow, facts)
        return Certificate(
            flow.name, energy, "proved", conditions=proof.conditions, steps=proof.steps, **found
        )
    except NoProofError as reason:
        point = counterexample(for_one_element(density + scalar), facts)
        if point is None:
            return Certificate(flow.name, energy, "undecided", steps=(str(reason),), **found)
        step = "the values are exact and the rate there was evaluated to 40 digits"
        return Certificate(
            flow.name, energy, "counterexample", steps=(step,), counterexample=point, **found
        )


def _with_form(density: sympy.Expr, flow: EquationFlow, facts: Facts) -> sympy.Expr | None:
    """A density with r² for g·damped(g, μ); None where other factors vary by element.

    Summed over elements, g·(Q + μI)⁻¹g is a square, |r|², for μ ≥ 0 and every Q without negative
    eigenvalues.
    """
    (call,) = density.atoms(damped)
    root = sympy.Symbol("r", real=True)
    form = sympy.expand(density).subs(g * call, root**2)
    weight = form.coeff(root, 2)
    negative = any(member[call.args[1]] < 0 for member in facts.members)
    unfit = form.has(damped) or flow.equations.elementwise(weight)
    return None if negative or unfit else form


def _exact(formula: sympy.Expr) -> sympy.Expr:
    """The formula with floats as the fractions that they are."""
    return formula.xreplace({f: exact(float(f)) for f in formula.atoms(sympy.Float)})


def _proof(density: sympy.Expr, scalar: sympy.Expr, flow: EquationFlow, facts: Facts) -> Proof:
    """Density and scalar part each, or their sum over elements, is nowhere positive."""
    parameters = frozenset(map(symbol, flow.hyperparameters))
    try:
        proofs = [prove_not_positive(part, facts.known, parameters) for part in (density, scalar)]
    except NoProofError:
        if scalar == 0:
            raise
        whole = _summed(density, flow) + sympy.expand(scalar)
        proofs = [prove_not_positive(whole, facts.known, parameters)]
    conditions = tuple(dict.fromkeys(c for proof in proofs for c in proof.conditions))
    for condition in conditions:
        if not all(condition.holds(member) for member in facts.members):
            raise NoProofError(f"the proof needs {condition}, which the values do not satisfy")
    steps = [
        s
        for part, proof in zip((density, scalar), proofs, strict=False)
        if part != 0
        for s in proof.steps
    ]
    return Proof(conditions, tuple(dict.fromkeys(steps or proofs[0].steps)))


def _summed(density: sympy.Expr, flow: EquationFlow) -> sympy.Expr:
    """The sum of a density over elements, factors without elements before the sums."""
    parts = []
    for part in sympy.Add.make_args(sympy.expand(density)):
        outside, inside = [], []
        for factor in sympy.Mul.make_args(part):
            (inside if flow.equations.elementwise(factor) else outside).append(factor)
        parts.append(sympy.Mul(*outside) * total(sympy.Mul(*inside)))
    return sympy.Add(*parts)
