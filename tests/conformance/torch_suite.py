"""torch's own test/test_optim.py, as it is, with flowopt's optimizers in its database.

    python -m tests.conformance.torch_suite path/to/pytorch/test/test_optim.py

The file is no part of torch's wheel; take that of your torch's release.
"""

import argparse
import copy
import importlib.util
import io
import re
import sys
import unittest
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

try:
    from torch.testing._internal import common_optimizers as database
    from torch.testing._internal.common_methods_invocations import DecorateInfo
except ModuleNotFoundError as missing:
    if __name__ != "__main__":
        raise
    sys.exit(f"torch's database of optimizers needs {missing.name}: pip install {missing.name}")

import flowopt as fo

TESTS = "TestOptimRenewed"
OF_TORCH = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")
# What the file imports beside it: tests of other things, which do not run here.
BESIDE = {
    "optim.test_lrscheduler": "TestLRScheduler",
    "optim.test_optim": "TestDifferentiableOptimizer",
    "optim.test_swa_utils": "TestSWAUtils",
}
# torch refuses these, and here they work.
NOT_REFUSED = "as a Tensor is not supported for capturable=False and foreach=True"
# torch warns of these, and what has noise or a control refuses them.
REFUSED = "a parameter group with duplicate parameters"
ONE_GROUP = "its energy is one of all parameters: one group"

Entry = database.OptimizerInfo


def entry_of_torch(name: str, compile: bool) -> Entry:
    """torch's own entry, but for what flowopt refuses (fused, sparse) or does not refuse."""
    (theirs,) = (entry for entry in database.optim_db if entry.name == name)
    entry, ours = copy.copy(theirs), getattr(fo.optim, name)
    entry.optim_cls = compiled(ours) if compile else ours
    entry.supported_impls = ("foreach",) if compile else ("foreach", "differentiable")
    entry.supports_fused_on, entry.supports_sparse = (), False

    entry.optim_error_inputs_func = without(theirs.optim_error_inputs_func, NOT_REFUSED)
    return entry


def without(errors: Callable, text: str) -> Callable:
    """Wrong arguments of torch's tests, but for those whose error is another one here."""

    def chosen(device, dtype):
        found = errors(device=device, dtype=dtype)
        return [error for error in found if text not in error.error_regex]

    return chosen


def compiled(preset: type) -> type:
    """An optimizer that is compiled unless it is told otherwise."""
    rule = {name: getattr(preset, name) for name in ("method", "twin") if hasattr(preset, name)}

    class Compiled(preset, **rule):
        def __init__(self, *args, **settings):
            super().__init__(*args, **{"compile": True, **settings})

    Compiled.__name__ = preset.__name__
    return Compiled


def own_entry(
    name: str, settings: Sequence[dict], skips: Mapping[str, str], **options: object
) -> Entry:
    """An entry of an optimizer that torch does not have; skips say why a test does not apply."""

    def inputs(device, dtype=None):
        return [database.OptimizerInput(params=None, kwargs=dict(own)) for own in settings]

    return Entry(
        getattr(fo.optim, name),
        optim_inputs_func=inputs,
        optim_error_inputs_func=without(database.get_error_inputs_for_all_optims, REFUSED),
        not_og_supported_flags=("maximize",),
        supported_impls=("foreach",),
        skips=[DecorateInfo(unittest.skip(why), TESTS, test) for test, why in skips.items()],
        **options,
    )


def energy_entry(name: str) -> Entry:
    """An optimizer that calls its closure within a step, as torch's LBFGS does."""
    skips = {
        "test_param_group_with_lrscheduler_goes_right_direction": ONE_GROUP,
        "test_param_groups_lr": ONE_GROUP,
        "test_param_groups_weight_decay": ONE_GROUP,
        "test_second_order_optims_return_consistent_types": "tolerance_grad is LBFGS's own",
    }
    settings = [{}, {"lr": 0.01}, {"maximize": True}]
    entry = own_entry(name, settings, skips, step_requires_closure=True)
    entry.supported_impls = ()
    return entry


def thermal_entry(name: str, compile: bool, **settings: float) -> Entry:
    """An optimizer with noise, so cold that it is below the tolerances of the tests."""
    cold = {"lr": 0.05, "temperature": 1e-8, **settings}
    entry = own_entry(name, [cold, {**cold, "maximize": True}], {})
    entry.optim_cls = compiled(entry.optim_cls) if compile else entry.optim_cls
    return entry


def entries(compile: bool) -> list[Entry]:
    """What takes the place of torch's database."""
    found = [entry_of_torch(name, compile) for name in OF_TORCH]
    found.append(thermal_entry("Langevin", compile))
    if compile:
        return found
    return [
        *found,
        thermal_entry("AdaptiveLangevin", compile, driving_noise=1e-4),
        *(energy_entry(name) for name in ("EnergyGD", "EnergyMomentum", "EnergyAdam")),
    ]


class Tracker(database.TensorTracker):
    """torch's, that also follows what is no tensor: the clock of a parameter."""

    def add(self, tensor: object) -> None:
        """Keeps a copy."""
        if isinstance(tensor, dict):
            self.tensors.append(dict(tensor))
        else:
            super().add(tensor)

    def pop_check_set(self, tensor_to_set, testcase, override_assert_eq_kwargs=None) -> None:
        """Compares with the oldest copy, and takes it over."""
        if not isinstance(tensor_to_set, dict):
            super().pop_check_set(tensor_to_set, testcase, override_assert_eq_kwargs)
            return
        kept = self.tensors.pop(0)
        testcase.assertEqual(tensor_to_set, kept)
        tensor_to_set.update(kept)


def loaded(path: Path, own: list[Entry]) -> ModuleType:
    """The file as a module, made from a database of our own entries."""
    theirs = list(database.optim_db)
    for name, test in BESIDE.items():
        folder, _, _ = name.partition(".")
        for module in (folder, name):
            sys.modules.setdefault(module, ModuleType(module))
        setattr(sys.modules[name], test, type(test, (unittest.TestCase,), {}))
    spec = importlib.util.spec_from_file_location("torch_test_optim", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    database.optim_db[:] = own
    try:
        spec.loader.exec_module(module)
        vars(module)["TensorTracker"] = Tracker
    finally:
        database.optim_db[:] = theirs
    return module


def outcomes(path: Path, compile: bool) -> tuple[dict[str, Counter], Counter, list[str]]:
    """Runs the tests.

    Returns:
        For each optimizer how many tests passed, failed and did not apply; how often each reason
        was given; and what failed, with its message.
    """
    own = entries(compile)
    tests = getattr(loaded(path, own), TESTS + "CPU")
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(tests)
    of_optimizer = re.compile(f"_({'|'.join(entry.name for entry in own)})_cpu_")
    counts: dict[str, Counter] = defaultdict(Counter)
    every = [test.id() for test in suite]
    result = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0).run(suite)
    broken = result.failures + result.errors
    ended = {test.id(): "failed" for test, _ in broken}
    ended |= {test.id(): "not for us" for test, _ in result.skipped}
    for name in every:
        optimizer = of_optimizer.search(name)
        counts[optimizer[1] if optimizer else name][ended.get(name, "passed")] += 1
    return counts, Counter(why for _, why in result.skipped), [text for _, text in broken]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all, prints a table; 1 where a test failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.torch_suite")
    parser.add_argument("path", type=Path, help="torch's test/test_optim.py")
    path = parser.parse_args(arguments).path
    if not path.is_file():
        parser.error(f"{path} is no file: give test/test_optim.py of a copy of pytorch")
    failed: list[str] = []
    print("| optimizer | passed | failed | does not apply |\n|---|--:|--:|--:|")
    reasons: Counter = Counter()
    for compile in (False, True):
        counts, why, messages = outcomes(path, compile)
        for name, count in sorted(counts.items()):
            label = f"{name}, compile=True" if compile else name
            print(f"| {label} | {count['passed']} | {count['failed']} | {count['not for us']} |")
        reasons += why
        failed += messages
    print("\n| does not apply, because | tests |\n|---|--:|")
    for reason, number in reasons.most_common():
        print(f"| {reason} | {number} |")
    for message in failed:
        print(f"\n{message}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
