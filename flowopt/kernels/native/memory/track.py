"""Tensors that are where they were at the last step, but for their gradients: one call for all.

    i64 follow(ptr given)

reads from memory, at the places that `layout` finds, what `look` asks torch for: address, type,
shape and strides of each tensor of each list, and of the gradients of the first list. If all is as
it was and gradients are at most elsewhere, in memory that no other tensor's is, the table of a
kernel is brought up to date and 1 comes back; else 0, and the table is to be made again. Memory
that torch did not take for itself (lent, shared, copied late, given back by resize_) is refused.

    void tell(ptr given)

gives the tensors of the first list a new version, by which autograd knows that they are written.
"""

import ctypes
from _ctypes import CFuncPtr
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowopt.kernels.native.build import link
from flowopt.kernels.native.machine import this_machine
from flowopt.kernels.native.memory import spans
from flowopt.kernels.native.memory.layout import TYPES, Layout, layout
from flowopt.kernels.native.memory.tensors import CLASS, PLAIN, item_of_list

# Dimensions of tensors whose shape stands in them.
MOST_DIMENSIONS = 5
# What `follow` is given, eight bytes each, in this order.
GIVEN = (
    *("item", "lists", "columns", "count", "dtype", "bytes", "keys", "release", "addresses"),
    *("versions", "owner", "shift", "rows", "table", "sizes", "begins", "ends", "spans"),
    *(f"class.{number}" for number in range(len(PLAIN))),
)

PLACE = """
; Where a tensor's numbers begin; -1 where it is not plain, or not of the first one's shape.
define internal i64 @place(ptr %tensor, ptr %first, i16 %dtype, i64 %bytes, i64 %keys,
                           i64 %release) {
entry:
  %at.keys = getelementptr i8, ptr %tensor, i64 {keys}
  %at.dtype = getelementptr i8, ptr %tensor, i64 {dtype}
  %at.dims = getelementptr i8, ptr %tensor, i64 {dimensions}
  %at.dims.0 = getelementptr i8, ptr %first, i64 {dimensions}
  %at.storage = getelementptr i8, ptr %tensor, i64 {storage}
  %at.offset = getelementptr i8, ptr %tensor, i64 {offset}
  %sizes = getelementptr i8, ptr %tensor, i64 {sizes}
  %sizes.0 = getelementptr i8, ptr %first, i64 {sizes}
  %strides = getelementptr i8, ptr %tensor, i64 {strides}
  %own.keys = load i64, ptr %at.keys
  %own.dtype = load i16, ptr %at.dtype
  %dims = load i64, ptr %at.dims
  %dims.0 = load i64, ptr %at.dims.0
  %plain = icmp eq i64 %own.keys, %keys
  %typed = icmp eq i16 %own.dtype, %dtype
  %alike = icmp eq i64 %dims, %dims.0
  %here = icmp ule i64 %dims, {MOST_DIMENSIONS}
  %fine.0 = and i1 %plain, %typed
  %fine.1 = and i1 %alike, %here
  %fine = and i1 %fine.0, %fine.1
  br i1 %fine, label %size, label %unlike
size:
  %d = phi i64 [ %dims, %entry ], [ %d.next, %next ]
  %product = phi i64 [ 1, %entry ], [ %product.next, %next ]
  %some = icmp sgt i64 %d, 0
  br i1 %some, label %measure, label %measured
measure:
  %d.next = sub i64 %d, 1
  %at.extent = getelementptr i64, ptr %sizes, i64 %d.next
  %at.extent.0 = getelementptr i64, ptr %sizes.0, i64 %d.next
  %at.stride = getelementptr i64, ptr %strides, i64 %d.next
  %extent = load i64, ptr %at.extent
  %extent.0 = load i64, ptr %at.extent.0
  %stride = load i64, ptr %at.stride
  %same = icmp eq i64 %extent, %extent.0
  %tight = icmp eq i64 %stride, %product
  %single = icmp eq i64 %extent, 1
  %ordered = or i1 %tight, %single
  %good = and i1 %same, %ordered
  br i1 %good, label %next, label %unlike
next:
  ; Strides of tensors without elements are as if each extent were at least one.
  %none = icmp eq i64 %extent, 0
  %factor = select i1 %none, i64 1, i64 %extent
  %product.next = mul i64 %product, %factor
  br label %size
measured:
  %storage = load ptr, ptr %at.storage
  %at.release = getelementptr i8, ptr %storage, i64 {release}
  %at.data = getelementptr i8, ptr %storage, i64 {data}
  %own.release = load i64, ptr %at.release
  %data = load i64, ptr %at.data
  %offset = load i64, ptr %at.offset
  %mine = icmp eq i64 %own.release, %release
  %behind = mul i64 %offset, %bytes
  %address = add i64 %data, %behind
  br i1 %mine, label %found, label %unlike
found:
  ret i64 %address
unlike:
  ret i64 -1
}
"""
FOLLOW = """
define i64 @follow(ptr %given) {
entry:
{loads}
  %row = mul i64 %columns, %count
  %gradients = getelementptr i64, ptr %addresses, i64 %row
  %counts = getelementptr i64, ptr %gradients, i64 %count
  %type = trunc i64 %dtype to i16
  br label %tensor
tensor:
  %i = phi i64 [ 0, %entry ], [ %i.next, %moved ]
  %elsewhere = phi i1 [ false, %entry ], [ %elsewhere.next, %moved ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %column, label %seen
column:
  %c = phi i64 [ 0, %tensor ], [ %c.next, %same ]
  %first = phi ptr [ null, %tensor ], [ %model, %same ]
  %others = icmp slt i64 %c, %columns
  br i1 %others, label %ask, label %gradient
ask:
  %at.list = getelementptr ptr, ptr %lists, i64 %c
  %list = load ptr, ptr %at.list
  %object = call ptr %item(ptr %list, i64 %i)
  %absent = icmp eq ptr %object, null
  br i1 %absent, label %unlike, label %known
known:
  %at.class = getelementptr i8, ptr %object, i64 {CLASS}
  %class = load i64, ptr %at.class
{classes}
  br i1 %plain.{LAST}, label %here, label %unlike
here:
  %at.tensor = getelementptr i8, ptr %object, i64 {tensor}
  %own = load ptr, ptr %at.tensor
  %begin = icmp eq i64 %c, 0
  %model = select i1 %begin, ptr %own, ptr %first
  %address = call i64 @place(ptr %own, ptr %model, i16 %type, i64 %bytes, i64 %keys, i64 %release)
  %into = mul i64 %c, %count
  %slot = add i64 %into, %i
  %at.before = getelementptr i64, ptr %addresses, i64 %slot
  %before = load i64, ptr %at.before
  %as.before = icmp eq i64 %address, %before
  br i1 %as.before, label %same, label %unlike
same:
  %c.next = add i64 %c, 1
  br label %column
gradient:
  %at.elements = getelementptr i8, ptr %first, i64 {elements}
  %at.version = getelementptr i8, ptr %first, i64 {version}
  %at.autograd = getelementptr i8, ptr %first, i64 {autograd}
  %elements = load i64, ptr %at.elements
  %version = load ptr, ptr %at.version
  %autograd = load ptr, ptr %at.autograd
  %at.counted = getelementptr i64, ptr %counts, i64 %i
  %counted = load i64, ptr %at.counted
  %resized = icmp ne i64 %elements, %counted
  %no.version = icmp eq ptr %version, null
  %no.autograd = icmp eq ptr %autograd, null
  %bad.0 = or i1 %resized, %no.version
  %bad = or i1 %bad.0, %no.autograd
  br i1 %bad, label %unlike, label %derived
derived:
  %at.number = getelementptr i8, ptr %version, i64 {count}
  %keep = getelementptr ptr, ptr %versions, i64 %i
  store ptr %at.number, ptr %keep
  %at.gradient = getelementptr i8, ptr %autograd, i64 {gradient}
  %slope = load ptr, ptr %at.gradient
  %no.slope = icmp eq ptr %slope, null
  br i1 %no.slope, label %unlike, label %located
located:
  %now = call i64 @place(ptr %slope, ptr %first, i16 %type, i64 %bytes, i64 %keys, i64 %release)
  %strange = icmp eq i64 %now, -1
  br i1 %strange, label %unlike, label %moved
moved:
  %at.old = getelementptr i64, ptr %gradients, i64 %i
  %old = load i64, ptr %at.old
  store i64 %now, ptr %at.old
  %other = icmp ne i64 %now, %old
  %elsewhere.next = or i1 %elsewhere, %other
  %i.next = add i64 %i, 1
  br label %tensor
seen:
  br i1 %elsewhere, label %check, label %fine
check:
  %apart = call i64 @apart(ptr %gradients, ptr %sizes, i64 %count, ptr %begins, ptr %ends,
    i64 %spans)
  %free = icmp ne i64 %apart, 0
  br i1 %free, label %lay, label %unlike
lay:
  %all = add i64 %columns, 1
  call void @lay(ptr %addresses, i64 %all, i64 %count, ptr %owner, ptr %shift, i64 %rows,
    ptr %table)
  br label %fine
fine:
  ret i64 1
unlike:
  ret i64 0
}
"""
TELL = """
define void @tell(ptr %given) {
entry:
{loads}
  br label %tensor
tensor:
  %i = phi i64 [ 0, %entry ], [ %i.next, %raise ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %raise, label %exit
raise:
  %kept = getelementptr ptr, ptr %versions, i64 %i
  %number = load ptr, ptr %kept
  %before = atomicrmw add ptr %number, i32 1 monotonic
  %i.next = add i64 %i, 1
  br label %tensor
exit:
  ret void
}
"""


def _printed(known: Layout) -> str:
    """The code for a layout."""
    numbers = ("columns", "count", "dtype", "bytes", "keys", "release", "rows", "spans")
    loads = "".join(
        f"  %at.{name} = getelementptr i64, ptr %given, i64 {place}\n"
        f"  %{name} = load {'i64' if name in numbers or '.' in name else 'ptr'}, ptr %at.{name}\n"
        for place, name in enumerate(GIVEN)
    ).rstrip("\n")
    classes = "  %plain.0 = icmp eq i64 %class, %class.0\n"
    for number in range(1, len(PLAIN)):
        classes += (
            f"  %is.{number} = icmp eq i64 %class, %class.{number}\n"
            f"  %plain.{number} = or i1 %plain.{number - 1}, %is.{number}\n"
        )
    text = PLACE + (FOLLOW + TELL).replace("{loads}", loads)
    text = text.replace("{classes}", classes.rstrip("\n"))
    facts = {**known._asdict(), "CLASS": CLASS, "MOST_DIMENSIONS": MOST_DIMENSIONS}
    facts["LAST"] = len(PLAIN) - 1
    for name, number in facts.items():
        text = text.replace(f"{{{name}}}", str(number))
    return spans.TEXT + text


class _Functions(NamedTuple):
    follow: CFuncPtr
    tell: CFuncPtr
    layout: Layout
    owner: object


@lru_cache(maxsize=1)
def _functions() -> _Functions | None:
    known = layout()
    if known is None:
        return None
    engine, _ = link(_printed(known), (), this_machine())
    # PYFUNCTYPE keeps Python's lock, without which lists could change meanwhile.
    follow = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
    tell = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
    return _Functions(
        follow(engine.get_function_address("follow")),
        tell(engine.get_function_address("tell")),
        known,
        engine,
    )


class Track:
    """Tensors of a table, followed from step to step.

    Args:
        content: Addresses of variables and gradients, then elements; (column + 2, tensor), int64.
        dtype: Of all tensors.
        table: Owner, shift and rows, as `spans.lay` takes them.
        sizes: Bytes of each tensor, (tensor,).
        written: Memory of all variables.
    """

    def __init__(
        self,
        content: np.ndarray,
        dtype: torch.dtype,
        table: tuple[np.ndarray, np.ndarray, np.ndarray],
        sizes: np.ndarray,
        written: spans.Spans,
    ):
        """See the class."""
        functions = _functions()
        assert functions is not None
        columns, count = len(content) - 2, content.shape[1]
        self._functions = functions
        self._lists = (ctypes.c_void_p * columns)()
        versions = np.empty(count, dtype=np.int64)
        owner, shift, rows = table
        self._kept = content.copy(), versions, table, sizes, written
        addresses = self._kept[0]
        given = {
            "item": item_of_list(),
            "lists": ctypes.addressof(self._lists),
            "columns": columns,
            "count": count,
            "dtype": TYPES[dtype],
            "bytes": dtype.itemsize,
            "keys": functions.layout.plain,
            "release": functions.layout.own,
            "addresses": addresses.ctypes.data,
            "versions": versions.ctypes.data,
            "owner": owner.ctypes.data,
            "shift": shift.ctypes.data,
            "rows": len(rows),
            "table": rows.ctypes.data,
            "sizes": sizes.ctypes.data,
        }
        given |= dict(zip(("begins", "ends", "spans"), written.places, strict=True))
        given |= {f"class.{number}": id(kind) for number, kind in enumerate(PLAIN)}
        self._given = (ctypes.c_int64 * len(GIVEN))(*(given[name] for name in GIVEN))

    @staticmethod
    def is_known() -> bool:
        """Whether tensors of this torch can be followed."""
        return _functions() is not None

    def follow(self, variables: Sequence[list[Tensor]]) -> bool:
        """Looks where tensors lie.

        Returns:
            Whether variables are where they were, and gradients where they may be; then the table
            is up to date.
        """
        for place, column in enumerate(variables):
            self._lists[place] = id(column)
        return bool(self._functions.follow(self._given))

    def tell(self) -> None:
        """Tells autograd that the first variable is written."""
        self._functions.tell(self._given)
