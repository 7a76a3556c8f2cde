import math
from dataclasses import replace

import pytest

from studies.basins.config import PRESETS
from studies.basins.figures import transitions
from studies.basins.methods import method, slower
from studies.basins.parts import rates, sweeps, true_flows

SMALL = replace(
    PRESETS["smoke"],
    near=20,
    swept=("poly_two",),
    swept_pixels=24,
    trapped=400,
    flowing=400,
)


def test_a_sweep_has_its_values_in_its_table_and_figure(monkeypatch):
    few = {name: replace(s, values=(0.1, 0.5)) for name, s in sweeps.SWEEPS.items()}
    few["growth"] = replace(few["growth"], values=(2.0, 10.0))
    monkeypatch.setattr(
        sweeps, "_values", lambda where, chosen, config: sweeps.Values(1, 2, math.nan, 4, 5, 1.25)
    )
    monkeypatch.setattr(sweeps, "SWEEPS", few)
    found = {name: compute() for name, compute in sweeps.units(SMALL).items()}
    arrays = sweeps.joined(found, SMALL)
    assert "|   10 |" in (text := sweeps.section(arrays, SMALL)).replace("     10", "   10")
    assert "1.250" in text and "–" in text
    assert len(transitions(arrays).axes) == 8


def test_dissipation_of_half_keeps_the_basins_and_plain_decrease_breaks_them():
    half, none = (
        sweeps._values("poly_two", sweeps.SWEEPS["dissipation"].method(v), SMALL)
        for v in (0.5, 1e-4)
    )
    assert half.unlike_flow < 3.0 < 20.0 < none.unlike_flow
    assert half.trap == none.trap == half.leave == none.leave == 0.0


def test_smaller_steps_of_one_equation_come_nearer_to_it():
    values = [sweeps._values("poly_two", slower("awb", h), SMALL).unlike_ode for h in (0.1, 0.02)]
    assert values[1] < 3.0 < 8.0 < values[0]


def test_slower_methods_step_the_equation_of_the_usual_ones():
    usual, half = slower("awb", 0.1).flow, slower("awb", 0.05).flow
    published = method("awb@0.1").flow
    assert usual.hyperparameters["momentum_rate"] == published.hyperparameters["momentum_rate"]
    rates = [f.hyperparameters["momentum_rate"].item() for f in (usual, half)]
    assert rates == pytest.approx([-math.log(0.9) / 0.1, -math.log(0.95) / 0.05])


def test_controlled_adam_costs_less_than_half_of_adam_and_nothing_leaves(monkeypatch):
    monkeypatch.setattr(rates, "RATES", (0.1,))
    config = replace(SMALL, starts=200)
    found = {name: compute() for name, compute in rates.units(config).items()}
    arrays = rates.joined(found, config)
    *controlled, theirs = (arrays.sel(rate_method=name, rate=0.1) for name in rates.TITLES)
    assert len(controlled) == 2
    for ours in controlled:
        assert float(ours.rate_converged) == 100.0
        assert float(ours.rate_cost) < float(theirs.rate_cost) / 2
        assert float(ours.rate_left) == 0.0
    assert "100.00" in rates.section(arrays, config)


@pytest.mark.parametrize("name", ["gradient flow", "momentum", "Adam, b = 4 a"])
def test_no_true_flow_leaves_its_trap(name):
    found = true_flows._trapped(true_flows._flows()[name], SMALL)
    assert int(found.trap_starts) > 20
    assert int(found.trap_left) == int(found.trap_other) == 0


def test_a_method_that_leaves_its_trap_is_seen():
    found = true_flows._trapped(method("awb@0.3"), SMALL)
    assert int(found.trap_left) > 0.5 * int(found.trap_starts)


def test_the_gradient_flow_ends_at_non_strict_saddles_but_at_no_strict_one():
    found = true_flows._saddles(method("gradient_flow"), SMALL).set_index(saddle_kind="saddle_kind")
    counts = dict(zip(found.saddle_kind.values, found.saddle_count.values, strict=True))
    assert counts["saddle"] == counts["maximum"] == 0
    assert sum(counts.values()) == SMALL.flowing
    # 26.2 % of the area, by a grid of 90000; five standard errors.
    error = (0.262 * 0.738 / SMALL.flowing) ** 0.5
    assert counts["non-strict saddle"] / SMALL.flowing == pytest.approx(0.262, abs=5 * error)
