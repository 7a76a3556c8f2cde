"""Pieces of a launch on torch's own threads, or on ours where torch has none to lend."""

import ctypes
import threading

import pytest
import torch

from flowopt.kernels.native import team
from flowopt.kernels.native.build import load
from flowopt.kernels.native.machine import this_machine

# Adds the numbers first … last − 1 to places of a table, and returns how many there were.
COUNTING = """
define i64 @run(ptr %table, ptr %unused, i64 %first, i64 %last, i64 %one, i64 %zero) {
entry:
  br label %next
next:
  %i = phi i64 [ %first, %entry ], [ %i.next, %next ]
  %place = getelementptr i64, ptr %table, i64 %i
  %old = load i64, ptr %place
  %new = add i64 %old, %one
  store i64 %new, ptr %place
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %last
  br i1 %more, label %next, label %exit
exit:
  %n = sub i64 %last, %first
  ret i64 %n
}
"""
EDGES = [0, 1, 5, 6, 40, 63, 64, 100]


def _counted(threads: int) -> tuple[int, list[int]]:
    code = load(COUNTING, (), this_machine())
    table = (ctypes.c_int64 * 100)()
    total = team.Pieces(code, (ctypes.addressof(table), 0), EDGES, (1, 0), threads).run()
    return total, list(table)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("lent", [True, False])
def test_every_piece_is_done_once(threads, lent, monkeypatch):
    if not lent:
        monkeypatch.setattr(team, "_openmp", lambda: None)
    for _ in range(20):
        assert _counted(threads) == (100, [1] * 100)


def test_threads_are_those_of_the_library_that_torch_is_linked_to():
    if "OpenMP" not in torch.__config__.parallel_info() or team._openmp() is None:
        pytest.skip("torch does not use GNU's OpenMP here")
    address = ctypes.cast(team._openmp(), ctypes.c_void_p).value
    with open("/proc/self/maps") as maps:
        spans = [line.split() for line in maps]
    (name,) = {
        fields[-1]
        for fields in spans
        if int(fields[0].split("-")[0], 16) <= address < int(fields[0].split("-")[1], 16)
    }
    assert str(torch.__path__[0]) in name


def test_a_thread_of_python_has_a_team_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(_counted(2)))
    thread.start()
    thread.join()
    assert found == [(100, [1] * 100)]
