"""The command that runs torch's own tests: what it counts, on a file made here."""

import runpy
import sys

import pytest
from torch.testing._internal.common_optimizers import optim_db

from tests.conformance.torch_suite import main

FILE = """
from optim.test_swa_utils import TestSWAUtils
from torch.testing._internal.common_device_type import instantiate_device_type_tests, onlyCUDA
from torch.testing._internal.common_optimizers import optim_db, optims
from torch.testing._internal.common_utils import TestCase

class TestOptimRenewed(TestCase):
    @optims(optim_db)
    def test_name(self, device, dtype, optim_info):
        self.assertTrue(optim_info.optim_cls.__module__.startswith(("flowopt.", "tests.")))
        self.assertNotEqual(optim_info.optim_cls.__name__, "{broken}")

    @onlyCUDA
    @optims(optim_db)
    def test_gpu(self, device, dtype, optim_info):
        raise NotImplementedError

instantiate_device_type_tests(TestOptimRenewed, globals())
instantiate_device_type_tests(TestSWAUtils, globals())
"""


@pytest.mark.parametrize(("broken", "status"), [("Adam", 1), ("none", 0)])
def test_every_optimizer_runs_every_test_in_both_ways(broken, status, tmp_path, capsys):
    file = tmp_path / "test_optim.py"
    file.write_text(FILE.format(broken=broken))
    before = list(optim_db)
    assert main([str(file)]) == status
    assert optim_db == before
    lines = capsys.readouterr().out.splitlines()
    passed = {line.split("|")[1].strip(): line.split("|")[2:5] for line in lines if "| 1 |" in line}
    for name in ("SGD", "SGD, compile=True", "Langevin", "Langevin, compile=True", "EnergyGD"):
        assert [int(number) for number in passed[name]] == [1, 0, 1]
    expected = [0, 1, 1] if status else [1, 0, 1]
    assert [int(number) for number in passed["Adam, compile=True"]] == expected
    assert any(line.startswith("| Only runs on cuda | ") for line in lines)


def test_what_is_missing_is_said_in_one_line(monkeypatch, capsys):
    name = "torch.testing._internal.common_optimizers"
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "tests.conformance.torch_suite")
        patched.delattr(name)
        patched.setitem(sys.modules, name, None)
        with pytest.raises(SystemExit, match=rf"needs {name}: pip install"):
            runpy.run_module("tests.conformance.torch_suite", run_name="__main__")
    with pytest.raises(SystemExit):
        main(["nowhere.py"])
    assert "nowhere.py is no file: give test/test_optim.py" in capsys.readouterr().err
