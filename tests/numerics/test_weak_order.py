"""Weak order of Langevin schemes, by exact expectations instead of samples."""

import math
from itertools import pairwise

import numpy
import pytest
import torch
from numpy.polynomial.polynomial import polyval2d
from scipy.linalg import expm

import flowopt as fo
from flowopt.registry import FLOWS
from tests.reference.affine import affine_map, draws_of
from tests.reference.states import GivenNormals, one_step, state_of

FRICTION, TEMPERATURE = 0.8, 0.5
SCHEMES = [*map(fo.Splitting, FLOWS["langevin"].words), fo.EulerMaruyama()]
# Enough Gauss-Hermite nodes to integrate the polynomials below exactly in each normal.
NODES = 12
SERIES = 16
MONOMIALS = [(0, 1), (1, 0), (0, 2), (1, 1), (2, 0), (0, 4)]


def langevin():
    return fo.flows.langevin(friction=FRICTION, temperature=TEMPERATURE)


def extrapolated_slope(errors):
    """Order of errors at h, h/2 and h/4, extrapolated to h = 0."""
    first, second = (math.log2(a / b) for a, b in pairwise(errors))
    return 2 * second - first


def oscillator_moments(curvature, time, start):
    """Mean and covariance of (p, theta) of the equation itself."""
    drift = numpy.array([[-FRICTION, -curvature], [1.0, 0.0]])
    spread = numpy.diag([2 * FRICTION * TEMPERATURE, 0.0])
    blocks = numpy.block([[drift, spread], [numpy.zeros((2, 2)), -drift.T]])
    flow = expm(blocks * time)
    return flow[:2, :2] @ start, flow[:2, 2:] @ flow[:2, :2].T


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_the_mean_and_covariance_of_an_oscillator_have_the_claimed_order(scheme):
    curvature, time, start = 1.3, 1.0, numpy.array([0.4, 0.9])
    exact_mean, exact_covariance = oscillator_moments(curvature, time, start)
    errors = []
    for steps in (16, 32, 64):
        chain = affine_map(langevin(), scheme, fo.problems.quadratic([curvature]), time / steps)
        matrix, noise = chain.matrix.numpy(), chain.noise.numpy()
        mean, covariance = start, numpy.zeros((2, 2))
        for _ in range(steps):
            mean = matrix @ mean
            covariance = matrix @ covariance @ matrix.T + noise @ noise.T
        difference = [mean - exact_mean, (covariance - exact_covariance).ravel()]
        errors.append(numpy.linalg.norm(numpy.concatenate(difference)))
    assert abs(extrapolated_slope(errors) - scheme.order(langevin())) < 0.1


def generator(f):
    """L f = p ∂f/∂θ − 4θ(θ² − 1) ∂f/∂p − γp ∂f/∂p + γT ∂²f/∂p², for f = Σ cᵢⱼ pⁱ θʲ."""
    result = numpy.zeros((f.shape[0] + 1, f.shape[1] + 3))
    for (i, j), c in numpy.ndenumerate(f):
        if j:
            result[i + 1, j - 1] += j * c
        if i:
            result[i - 1, j + 3] -= 4 * i * c
            result[i - 1, j + 1] += 4 * i * c
            result[i, j] -= FRICTION * i * c
        if i > 1:
            result[i - 2, j] += FRICTION * TEMPERATURE * i * (i - 1) * c
    return result


def expectations(p, theta, step_size):
    """E pⁱθʲ after a time h in the double well, by the series of exp(hL)."""
    values = []
    for i, j in MONOMIALS:
        f = numpy.zeros((i + 1, j + 1))
        f[i, j] = 1.0
        value = 0.0
        for k in range(SERIES):
            value += step_size**k / math.factorial(k) * polyval2d(p, theta, f)
            f = generator(f)
        values.append(value)
    return numpy.array(values)


def stepped_expectations(scheme, p, theta, step_size):
    """E pⁱθʲ after one step, by Gauss–Hermite quadrature over its normals."""
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(NODES)
    double_well, at_start = fo.problems.double_well(), torch.zeros(1, dtype=torch.float64)
    start = {"p": at_start, "theta": at_start}
    draws = len(draws_of(langevin(), scheme, double_well, state_of(start), step_size))
    grids = numpy.meshgrid(*[nodes] * draws, indexing="ij")
    weight = numpy.prod(numpy.meshgrid(*[weights] * draws, indexing="ij"), axis=0).ravel()
    normals = [(torch.from_numpy(grid.ravel().copy()),) for grid in grids]
    column = torch.ones(weight.size, 1, dtype=torch.float64)
    end = one_step(
        langevin(),
        scheme,
        double_well,
        state_of({"p": p * column, "theta": theta * column}),
        step_size,
        GivenNormals(normals),
    )
    (p_end,), (theta_end,) = (end.variables[name] for name in ("p", "theta"))
    moments = [weight @ (p_end**i * theta_end**j).numpy() for i, j in MONOMIALS]
    return numpy.array(moments) / weight.sum()


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_expectations_in_the_double_well_have_the_claimed_order(scheme):
    p, theta = 0.3, 0.6
    errors = []
    for step_size in (0.04, 0.02, 0.01):
        stepped = stepped_expectations(scheme, p, theta, step_size)
        errors.append(numpy.linalg.norm(stepped - expectations(p, theta, step_size)))
    # The error of one step is one order higher than the error at a fixed time.
    assert abs(extrapolated_slope(errors) - 1 - scheme.order(langevin())) < 0.1, errors
