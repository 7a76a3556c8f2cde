"""Addresses of a table's rows, and whether memory overlaps, for many tensors in one call.

    void lay(ptr addresses, i64 columns, i64 count, ptr owner, ptr shift, i64 rows, ptr table)

writes into each row of a table where its columns begin: at the address of the row's tensor, so
many bytes further.

    i64 apart(ptr starts, ptr sizes, i64 count, ptr begins, ptr ends, i64 spans)

says whether none of the tensors lies within spans of memory that are in order and apart. Tensors
are mostly in the order of the spans: the place after the last one found is tried first.

The same in numpy takes a dozen calls, each of which finds its code out of the processor's caches
after a step has gone through them.
"""

import ctypes
from _ctypes import CFuncPtr
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from flowopt.kernels.native.build import link
from flowopt.kernels.native.machine import this_machine

TEXT = """
define void @lay(ptr %addresses, i64 %columns, i64 %count, ptr %owner, ptr %shift, i64 %rows,
                 ptr %table) {
entry:
  %width = add i64 %columns, 2
  %some = icmp sgt i64 %rows, 0
  br i1 %some, label %row, label %exit
row:
  %r = phi i64 [ 0, %entry ], [ %r.next, %next ]
  %at.owner = getelementptr i64, ptr %owner, i64 %r
  %at.shift = getelementptr i64, ptr %shift, i64 %r
  %tensor = load i64, ptr %at.owner
  %bytes = load i64, ptr %at.shift
  %first = mul i64 %r, %width
  br label %column
column:
  %c = phi i64 [ 0, %row ], [ %c.next, %column ]
  %before = mul i64 %c, %count
  %place = add i64 %before, %tensor
  %at.address = getelementptr i64, ptr %addresses, i64 %place
  %address = load i64, ptr %at.address
  %begin = add i64 %address, %bytes
  %into = add i64 %first, %c
  %at.table = getelementptr i64, ptr %table, i64 %into
  store i64 %begin, ptr %at.table
  %c.next = add i64 %c, 1
  %more = icmp slt i64 %c.next, %columns
  br i1 %more, label %column, label %next
next:
  %r.next = add i64 %r, 1
  %further = icmp slt i64 %r.next, %rows
  br i1 %further, label %row, label %exit
exit:
  ret void
}

define i64 @apart(ptr %starts, ptr %sizes, i64 %count, ptr %begins, ptr %ends, i64 %spans) {
entry:
  %tensors = icmp sgt i64 %count, 0
  %memory = icmp sgt i64 %spans, 0
  %both = and i1 %tensors, %memory
  br i1 %both, label %tensor, label %fine
tensor:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %guess = phi i64 [ 0, %entry ], [ %after, %next ]
  %at.start = getelementptr i64, ptr %starts, i64 %i
  %at.size = getelementptr i64, ptr %sizes, i64 %i
  %start = load i64, ptr %at.start
  %size = load i64, ptr %at.size
  %end = add i64 %start, %size
  br label %look
look:
  ; Spans before `low` begin before the tensor ends, those from `high` on do not.
  %low = phi i64 [ 0, %tensor ], [ %low.next, %look ]
  %high = phi i64 [ %spans, %tensor ], [ %high.next, %look ]
  %try = phi i64 [ %guess, %tensor ], [ %middle, %look ]
  %at.begin = getelementptr i64, ptr %begins, i64 %try
  %begin = load i64, ptr %at.begin
  %before = icmp slt i64 %begin, %end
  %above = add i64 %try, 1
  %low.next = select i1 %before, i64 %above, i64 %low
  %high.next = select i1 %before, i64 %high, i64 %try
  %open = icmp slt i64 %low.next, %high.next
  %sum = add i64 %low.next, %high.next
  %half = lshr i64 %sum, 1
  ; A guess that was right leaves the next span to be tried, not the middle of the rest.
  %second = icmp eq i64 %try, %guess
  %right = and i1 %second, %before
  %middle = select i1 %right, i64 %above, i64 %half
  br i1 %open, label %look, label %found
found:
  %none = icmp eq i64 %low.next, 0
  %last = sub i64 %low.next, 1
  %safe = select i1 %none, i64 0, i64 %last
  %at.end = getelementptr i64, ptr %ends, i64 %safe
  %reached = load i64, ptr %at.end
  %over = icmp sgt i64 %reached, %start
  %solid = icmp sgt i64 %size, 0
  %some = xor i1 %none, true
  %overlap.1 = and i1 %over, %solid
  %overlap = and i1 %overlap.1, %some
  br i1 %overlap, label %shared, label %next
next:
  %whole = icmp slt i64 %low.next, %spans
  %after = select i1 %whole, i64 %low.next, i64 %safe
  %i.next = add i64 %i, 1
  %further = icmp slt i64 %i.next, %count
  br i1 %further, label %tensor, label %fine
fine:
  ret i64 1
shared:
  ret i64 0
}
"""


class _Functions(NamedTuple):
    lay: CFuncPtr
    apart: CFuncPtr
    owner: object


@lru_cache(maxsize=1)
def _functions() -> _Functions:
    engine, _ = link(TEXT, (), this_machine())
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    lay = ctypes.PYFUNCTYPE(None, pointer, whole, whole, pointer, pointer, whole, pointer)
    apart = ctypes.PYFUNCTYPE(whole, pointer, pointer, whole, pointer, pointer, whole)
    return _Functions(
        lay(engine.get_function_address("lay")), apart(engine.get_function_address("apart")), engine
    )


def lay(addresses: np.ndarray, owner: np.ndarray, shift: np.ndarray, table: np.ndarray) -> None:
    """Writes where the columns of rows begin; all arrays int64 and contiguous.

    Args:
        addresses: Of tensors, (column, tensor).
        owner: Tensor of each row, (row,).
        shift: Bytes from the tensor's first element to the row's, (row,).
        table: What is written to, (row, column + 2).
    """
    columns, count = addresses.shape
    _functions().lay(
        addresses.ctypes.data,
        columns,
        count,
        owner.ctypes.data,
        shift.ctypes.data,
        len(owner),
        table.ctypes.data,
    )


class Spans:
    """Memory that is written, as spans in order.

    Args:
        addresses: Of tensors, of any shape, int64.
        sizes: Their bytes, of a shape that can be broadcast.

    Attributes:
        apart: Whether no two of them overlap.
        places: Addresses of their begins and ends, and how many there are.
    """

    def __init__(self, addresses: np.ndarray, sizes: np.ndarray):
        """See the class."""
        begins, ends = addresses.ravel(), (addresses + sizes).ravel()
        order = np.argsort(begins, kind="stable")
        order = order[ends[order] > begins[order]]
        self._begins, self._ends = begins[order], ends[order]
        self.apart = not (self._begins[1:] < self._ends[:-1]).any()
        self.places = self._begins.ctypes.data, self._ends.ctypes.data, len(order)

    def free_of(self, addresses: np.ndarray, sizes: np.ndarray) -> bool:
        """Whether tensors, (tensor,), lie outside of all spans, which are apart."""
        places = addresses.ctypes.data, sizes.ctypes.data, len(addresses)
        return bool(_functions().apart(*places, *self.places))
