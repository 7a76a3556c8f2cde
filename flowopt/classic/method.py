"""A published optimizer as flow + scheme + map of its hyperparameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy
import torch
from torch import Tensor

from flowopt.flows import EquationFlow
from flowopt.flows.decay import with_l2
from flowopt.schemes import Splitting
from flowopt.symbolic.language import Equations, symbol
from flowopt.symbolic.printing.torch_code import compile_formulas

# A rate per step of which exp(−rate) is zero in float64.
AT_ONCE = 1000


@dataclass(frozen=True)
class Rule:
    """What does not depend on numbers.

    Attributes:
        name: Of the optimizer.
        equations: Its flow.
        scheme: Its word and maps.
        step_size: Time per step in terms of the classic hyperparameters.
        hyperparameters: Flow hyperparameter → formula in the classic ones.
        per_step: Those that are given as rate × step size.
    """

    name: str
    equations: Equations
    scheme: Splitting
    step_size: sympy.Expr
    hyperparameters: Mapping[str, sympy.Expr]
    per_step: frozenset[str]

    @cached_property
    def flow(self) -> EquationFlow:
        """The flow with placeholder values, whose compiled code all values share."""
        ones = dict.fromkeys(self.equations.hyperparameters, 1.0)
        return EquationFlow(self.equations, name=self.name, per_step=self.per_step, **ones)

    @cached_property
    def _compiled(self):
        formulas = {"step_size": self.step_size, **self.hyperparameters}
        return compile_formulas(f"{self.name}.settings", formulas, ())

    def translate(self, settings: Mapping[str, float | Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Step size and flow hyperparameters, float64, of classic hyperparameters."""
        values = {n: torch.as_tensor(v, dtype=torch.float64) for n, v in settings.items()}
        compiled = self._compiled
        coefficients = compiled.coefficients(*(values[n] for n in compiled.scalar_arguments))
        results = [
            torch.as_tensor(result, dtype=torch.float64)
            for result in compiled.update(*coefficients)
        ]
        return results[0], dict(zip(self.hyperparameters, results[1:], strict=True))


@dataclass(frozen=True)
class Method:
    """A published optimizer with its hyperparameters.

    Attributes:
        rule: Flow, scheme and map.
        settings: Classic hyperparameters, pairs such as betas taken apart.
    """

    rule: Rule
    settings: Mapping[str, float | Tensor]

    @property
    def name(self) -> str:
        """Of the optimizer."""
        return self.rule.name

    @property
    def scheme(self) -> Splitting:
        """Word and maps."""
        return self.rule.scheme

    @property
    def step_size(self) -> Tensor:
        """Time per step, 0-d float64."""
        return self.rule.translate(self.settings)[0]

    @property
    def flow(self) -> EquationFlow:
        """The flow with its hyperparameters."""
        return self.rule.flow.with_hyperparameters(**self.rule.translate(self.settings)[1])


def formulas(**table: sympy.Expr | float) -> dict[str, sympy.Expr]:
    """Formulas by name, numbers made symbolic."""
    return {name: sympy.sympify(formula) for name, formula in table.items()}


def same(*names: str) -> dict[str, sympy.Expr]:
    """Hyperparameters that the flow and the classic rule share."""
    return {name: symbol(name) for name in names}


def decayed(equations: Equations, decay: bool) -> tuple[Equations, dict[str, sympy.Expr]]:
    """Equations with an L2 penalty if asked for; hyperparameters that this adds."""
    return (with_l2(equations), same("weight_decay")) if decay else (equations, {})


def nonzero(value: float | Tensor) -> bool:
    """Whether a hyperparameter, or one in a batch of them, is not zero."""
    return bool((torch.as_tensor(value) != 0).any())


def held(word: str, *, euler: bool) -> Splitting:
    """A word whose move of θ, the letter A, holds its drift where θ enters it."""
    return Splitting(word, maps={"A": "euler"} if euler else None)
