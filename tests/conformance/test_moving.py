"""The page on moving from torch.optim names every argument of torch's, and of which rules it is."""

import inspect
import re
from pathlib import Path

import torch

from tests.conformance.torch_suite import OF_TORCH

PAGE = Path(__file__).parents[2] / "docs" / "moving.md"
ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \| ([\w, ]+) \|", re.MULTILINE)


def test_the_page_has_every_argument_of_torch_with_its_rules():
    found = {}
    for names, rules in ROW.findall(PAGE.read_text(encoding="utf-8")):
        of = set(OF_TORCH) if rules == "all" else set(rules.split(", "))
        found |= dict.fromkeys(re.findall(r"\w+", names), of)
    expected = {}
    for rule in OF_TORCH:
        for name in inspect.signature(getattr(torch.optim, rule)).parameters:
            expected.setdefault(name, set()).add(rule)
    assert found == expected
