"""Where a study computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import joblib
import torch

from flowopt.errors import ConfigurationError

Found = TypeVar("Found")


def checked_device(name: str) -> torch.device:
    """A device that exists on this machine.

    Args:
        name: "cpu", "cuda" or "cuda:1".

    Returns:
        The device.

    Raises:
        ConfigurationError: The name is none, or there is no such device here.
    """
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ConfigurationError(f"unknown device {name!r}, expected cpu, cuda or cuda:NUMBER")
    found = torch.cuda.device_count() if kind == "cuda" else 1
    if int(number or 0) >= found:
        raise ConfigurationError(
            f"this machine has no device {name!r} (torch finds {found} of the kind {kind}): "
            "use another, such as cpu"
        )
    return torch.device(name)


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread on the CPU for as long as it is entered.

    Networks of a few thousand parameters gain nothing from a second one, and lose a factor of ten
    where another process wants that core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_processes(
    function: Callable[..., Found], calls: Iterable[tuple], jobs: int
) -> Iterator[Found]:
    """What a function gives for each of some arguments, as soon as it is there.

    Args:
        function: Of a module, so that another process finds it.
        calls: Its arguments, call by call.
        jobs: How many calls at a time, each in a process of its own; 1 for this one.
    """
    tasks = (joblib.delayed(function)(*arguments) for arguments in calls)
    found = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
    return cast(Iterator[Found], found)
