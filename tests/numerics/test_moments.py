"""Stationary moments of Langevin words on quadratics, exact and without sampling."""

import math

import pytest
import torch

import flowopt as fo
from tests.reference.affine import affine_map

INFINITE = math.inf


def moments(word, *, step_size, friction, curvature, temperature):
    """⟨θ²⟩, ⟨p²⟩, ⟨θp⟩ of one oscillator."""
    flow = fo.flows.langevin(friction=friction, temperature=temperature)
    problem = fo.problems.quadratic([curvature])
    chain = affine_map(flow, fo.Splitting(word), problem, step_size)
    (pp, pq), (_, qq) = chain.stationary_covariance()
    return torch.stack([qq, pp, pq])


def closed_form(word, h, c, k, T):
    """What the chain keeps, with c = exp(−γh) and x = h²k.

    Reference:
        Leimkuhler & Matthews 2015, Molecular Dynamics, section 7.4, for BAOAB; the others follow
        from the same fixed-point equations.
    """
    x = h * h * k
    bao = 2 * (1 + c) - x
    theta_squared, p_squared, product = {
        "BAOAB": (1, 1 - x / 4, 0),
        "BAOA": (1, 1, h / 2 * k),
        "AOAB": (1, 1, -h / 2 * k),
        "ABOBA": (1, 1 / (1 - x / 4), 0),
        "OBABO": (1 / (1 - x / 4), 1, 0),
        "BABO": (1 / (1 - x / 4), 1, 0),
        "OABAO": (1 - x / 4, 1, 0),
        "BAO": (
            (1 + c) ** 2 / bao,
            (1 + c) * (2 - (1 - c) * x) / bao,
            c * h * (1 + c) / bao * k,
        ),
        "AOBA": ((1 + c) / 2, 2 * (1 + c) / bao, 0),
        "OBA": ((1 + c) ** 2 / bao, 2 * (1 + c) / bao, h * (1 + c) / bao * k),
    }[word]
    return torch.tensor([theta_squared / k, p_squared, product / k], dtype=torch.float64) * T
