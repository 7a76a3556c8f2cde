"""Groups of processes that run functions together, kept from test to test."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Seconds after which a function hangs: all of them take less than one.
PATIENCE = 60
# A server imports once, and each process is forked from it: a new Python takes seconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch.distributed.checkpoint", "torch.distributed.fsdp", "flowopt"]
)


class Processes:
    """So many processes with a gloo group."""

    def __init__(self, number: int):
        """Starts them."""
        self.number = number
        self._start()

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        store = Path(self._folder.name) / "store"
        self._pipes, self._processes = [], []
        for rank in range(self.number):
            here, there = CONTEXT.Pipe()
            arguments = rank, self.number, str(store), there
            process = CONTEXT.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, function: Callable, *arguments: Any) -> list[Any]:
        """What a function of a module gives in each process.

        Raises:
            AssertionError: It raised in one of them, or hangs.
        """
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers: dict[int, Any] = {}
        while len(answers) < self.number:
            missing = {p: rank for rank, p in enumerate(self._pipes) if rank not in answers}
            ready = wait(missing, timeout=PATIENCE)
            for pipe in ready:
                fine, answer = pipe.recv()
                if not fine:
                    self._again()
                    raise AssertionError(f"process {missing[pipe]} of {self.number}:\n{answer}")
                answers[missing[pipe]] = answer
            if not ready:
                self._again()
                raise AssertionError(f"processes {sorted(missing.values())} hang")
        return [answers[rank] for rank in range(self.number)]

    def _again(self) -> None:
        """Others may wait for one that failed: all are started anew."""
        self.end()
        self._start()

    def end(self) -> None:
        """Ends them."""
        for process in self._processes:
            process.terminate()
            process.join()
        self._folder.cleanup()


def _serve(rank: int, number: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=number,
        timeout=timedelta(seconds=PATIENCE),
    )
    while True:
        function, arguments = pipe.recv()
        try:
            answer = True, function(*arguments)
        except Exception:
            answer = False, traceback.format_exc()
        pipe.send(answer)
