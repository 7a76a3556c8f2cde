"""Where tensors lie and whether they are alike, for many tensors in one call.

    i64 look(ptr item, ptr export, ptr classes, ptr lists, i64 columns, i64 count, i64 dtype,
             ptr content)

asks torch for tensor i of each list, by the C interface of the DLPack standard that `torch.Tensor`
offers, and writes its address, and behind all addresses how many elements it has. Objects of other
classes than torch's own may keep their numbers elsewhere, and are not asked. In Python every single
question to a tensor costs 40 to 60 ns, and each of thousands has to be asked again at every step.
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
from flowopt.kernels.program import UnfitError

# Fields of DLPack: codes of types of numbers, of the device, and of the table of functions.
CODES = {torch.float64: (2, 64), torch.float32: (2, 32), torch.float16: (2, 16)}
CODES |= {torch.bfloat16: (4, 16)}
CPU = 1
MAJOR_VERSION = 1
CAPSULE = b"dlpack_exchange_api"
EXPORT = 5
# Their objects are asked; others may keep their numbers elsewhere.
PLAIN = (torch.nn.Parameter, Tensor, torch.nn.Buffer)
# An object's class is the last that all objects have in common.
CLASS = object.__basicsize__ - ctypes.sizeof(ctypes.c_void_p)

TEXT = """
%dltensor = type { ptr, i32, i32, i32, i32, ptr, ptr, i64 }
define i64 @look(ptr %item, ptr %export, ptr %classes, ptr %lists, i64 %columns, i64 %count,
                 i64 %dtype, ptr %content) {
entry:
  %own = alloca %dltensor
  %model = alloca %dltensor
  %flags = alloca i64
  store i64 0, ptr %flags
  %type = trunc i64 %dtype to i32
  %empty = icmp eq i64 %count, 0
  br i1 %empty, label %finish, label %tensor
tensor:
  %i = phi i64 [ 0, %entry ], [ %i.next, %row ]
  br label %column
column:
  %c = phi i64 [ 0, %tensor ], [ %c.next, %store ]
  %at.list = getelementptr ptr, ptr %lists, i64 %c
  %list = load ptr, ptr %at.list
  %object = call ptr %item(ptr %list, i64 %i)
  %none = icmp eq ptr %object, null
  br i1 %none, label %failed, label %known
known:
  %at.class = getelementptr i8, ptr %object, i64 {CLASS}
  %class = load ptr, ptr %at.class
  br label %class.one
class.one:
  %k = phi i64 [ 0, %known ], [ %k.next, %class.next ]
  %at.known = getelementptr ptr, ptr %classes, i64 %k
  %one = load ptr, ptr %at.known
  %found.class = icmp eq ptr %class, %one
  br i1 %found.class, label %ask, label %class.next
class.next:
  %k.next = add i64 %k, 1
  %others = icmp slt i64 %k.next, {CLASSES}
  br i1 %others, label %class.one, label %unlike
ask:
  %first = icmp eq i64 %c, 0
  %into = select i1 %first, ptr %model, ptr %own
  %status = call i32 %export(ptr %object, ptr %into)
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %compare, label %failed
compare:
  %at.device = getelementptr %dltensor, ptr %into, i64 0, i32 1
  %at.ndim = getelementptr %dltensor, ptr %into, i64 0, i32 3
  %at.type = getelementptr %dltensor, ptr %into, i64 0, i32 4
  %at.shape = getelementptr %dltensor, ptr %into, i64 0, i32 5
  %at.strides = getelementptr %dltensor, ptr %into, i64 0, i32 6
  %at.offset = getelementptr %dltensor, ptr %into, i64 0, i32 7
  %model.ndim = getelementptr %dltensor, ptr %model, i64 0, i32 3
  %model.shape = getelementptr %dltensor, ptr %model, i64 0, i32 5
  %device = load i32, ptr %at.device
  %number = load i32, ptr %at.type
  %ndim = load i32, ptr %at.ndim
  %ndim.0 = load i32, ptr %model.ndim
  %shape = load ptr, ptr %at.shape
  %shape.0 = load ptr, ptr %model.shape
  %strides = load ptr, ptr %at.strides
  %here = icmp eq i32 %device, {CPU}
  %same.type = icmp eq i32 %number, %type
  %same.ndim = icmp eq i32 %ndim, %ndim.0
  %alike.0 = and i1 %here, %same.type
  %alike = and i1 %alike.0, %same.ndim
  br i1 %alike, label %sizes, label %unlike
sizes:
  %last = sext i32 %ndim to i64
  br label %size
size:
  %d = phi i64 [ %last, %sizes ], [ %d.next, %measure ]
  %product = phi i64 [ 1, %sizes ], [ %product.next, %measure ]
  %gaps = phi i1 [ false, %sizes ], [ %gaps.next, %measure ]
  %d.next = sub i64 %d, 1
  %more = icmp sgt i64 %d, 0
  br i1 %more, label %measure, label %measured
measure:
  %at.extent = getelementptr i64, ptr %shape, i64 %d.next
  %at.extent.0 = getelementptr i64, ptr %shape.0, i64 %d.next
  %at.stride = getelementptr i64, ptr %strides, i64 %d.next
  %extent = load i64, ptr %at.extent
  %extent.0 = load i64, ptr %at.extent.0
  %stride = load i64, ptr %at.stride
  %product.next = mul i64 %product, %extent
  %tight = icmp eq i64 %stride, %product
  %single = icmp eq i64 %extent, 1
  %dense = or i1 %tight, %single
  %gap = xor i1 %dense, true
  %gaps.next = or i1 %gaps, %gap
  %same.extent = icmp eq i64 %extent, %extent.0
  br i1 %same.extent, label %size, label %unlike
measured:
  %data = load i64, ptr %into
  %offset = load i64, ptr %at.offset
  %address = add i64 %data, %offset
  %some = icmp ne i64 %product, 0
  %nowhere = icmp eq i64 %data, 0
  %missing = and i1 %some, %nowhere
  br i1 %missing, label %unlike, label %store
store:
  %apart = and i1 %gaps, %some
  %number.one = icmp eq i64 %product, 1
  %flag.strided = select i1 %apart, i64 {STRIDED}, i64 0
  %flag.single = select i1 %number.one, i64 {SINGLE}, i64 0
  %flags.own = or i64 %flag.strided, %flag.single
  %flags.before = load i64, ptr %flags
  %flags.now = or i64 %flags.before, %flags.own
  store i64 %flags.now, ptr %flags
  %column.start = mul i64 %c, %count
  %place = add i64 %column.start, %i
  %at.address = getelementptr i64, ptr %content, i64 %place
  store i64 %address, ptr %at.address
  %counts = mul i64 %columns, %count
  %count.place = add i64 %counts, %i
  %at.count = getelementptr i64, ptr %content, i64 %count.place
  store i64 %product, ptr %at.count
  %c.next = add i64 %c, 1
  %another = icmp slt i64 %c.next, %columns
  br i1 %another, label %column, label %row
row:
  %i.next = add i64 %i, 1
  %further = icmp slt i64 %i.next, %count
  br i1 %further, label %tensor, label %finish
finish:
  %found = load i64, ptr %flags
  ret i64 %found
unlike:
  ret i64 {UNLIKE}
failed:
  ret i64 {UNLIKE}
}
"""
UNLIKE, STRIDED, SINGLE = -1, 1, 2


class Places(NamedTuple):
    """Where tensors lie.

    Attributes:
        content: Addresses, then elements of each tensor; (column + 1, tensor), int64.
        strided: Whether a tensor is not contiguous.
        single: Whether a tensor has one element.
    """

    content: np.ndarray
    strided: bool
    single: bool

    @property
    def addresses(self) -> np.ndarray:
        """(column, tensor)."""
        return self.content[:-1]

    @property
    def counts(self) -> np.ndarray:
        """(tensor,)."""
        return self.content[-1]


class _Look(NamedTuple):
    """The function `look`, functions of Python and torch that it calls, what keeps it in memory."""

    call: CFuncPtr
    item: int
    export: int
    classes: ctypes.Array
    owner: object


@lru_cache(maxsize=1)
def item_of_list() -> int:
    """Address of Python's function that gives an item of a list."""
    item = ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p).value
    assert item is not None
    return item


@lru_cache(maxsize=1)
def _look() -> _Look:
    text = TEXT
    numbers = {"CPU": CPU, "CLASS": CLASS, "CLASSES": len(PLAIN)}
    numbers |= {"UNLIKE": UNLIKE, "STRIDED": STRIDED, "SINGLE": SINGLE}
    for name, number in numbers.items():
        text = text.replace(f"{{{name}}}", str(number))
    engine, _ = link(text, (), this_machine())
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    # PYFUNCTYPE keeps Python's lock, without which lists could change meanwhile.
    prototype = ctypes.PYFUNCTYPE(whole, *[pointer] * 4, *[whole] * 3, pointer)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.argtypes, get.restype = [ctypes.py_object, ctypes.c_char_p], pointer
    table = get(Tensor.__dlpack_c_exchange_api__, CAPSULE)
    major = ctypes.c_uint32.from_address(table).value
    if major != MAJOR_VERSION:
        raise UnfitError(f"this torch speaks version {major} of DLPack, not {MAJOR_VERSION}")
    export = (pointer * (EXPORT + 1)).from_address(table)[EXPORT]
    classes = (pointer * len(PLAIN))(*map(id, PLAIN))
    return _Look(
        prototype(engine.get_function_address("look")), item_of_list(), export, classes, engine
    )


def look(columns: Sequence[list[Tensor]], dtype: torch.dtype) -> Places | None:
    """Where tensors lie; None unless the tensors of each row have one shape and are of one type.

    Args:
        columns: Lists of equal length; objects of other classes than `PLAIN` are like no other.
        dtype: Of all of them.
    """
    code, bits = CODES[dtype]
    count = len(columns[0])
    content = np.empty((len(columns) + 1, count), dtype=np.int64)
    lists = (ctypes.c_void_p * len(columns))(*map(id, columns))
    function = _look()
    try:
        found = function.call(
            function.item,
            function.export,
            function.classes,
            ctypes.addressof(lists),
            len(columns),
            count,
            code | bits << 8 | 1 << 16,
            content.ctypes.data,
        )
    except (BufferError, RuntimeError, NotImplementedError):
        # Tensors without memory of their own, as sparse ones.
        return None
    if found == UNLIKE:
        return None
    return Places(content, bool(found & STRIDED), bool(found & SINGLE))
