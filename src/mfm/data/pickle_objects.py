"""The only things that a pickle may ask for, and what we build in their place.

Nothing here is looked up by a name found in a file: `ALLOWED` maps the names that published feature
files use to constructors written in this module. The real `numpy.ndarray`, `_reconstruct` and
friends are never handed to the stream.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Payloads up to this many bytes are copied out of the file: ids, labels and scalars are not worth a view each.
VIEW_THRESHOLD = 1024
MAX_KEY_PARTS = 1000
MAX_UNICODE = 0x10FFFF

_DTYPE_CODE = re.compile(r"[<>=|]?(b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU]\d{1,9}|O[48]?)")


class Malformed(Exception):
    """The stream is damaged; the interpreter adds file and position."""


class Refused(Exception):
    """The stream asks for something outside the allow-list; the interpreter adds file and position."""


class Payload:
    """Bytes or text that stay in the file until somebody needs them.

    Attributes:
        view: Read-only window on the mapped file.
        kind: What the opcode says the bytes are. `latin1` is Python 2's `str`: bytes or text, as the consumer wants.
        loose: Whether it may be seen outside of an array, and so has to become a plain value at the end.
    """

    __slots__ = ("kind", "loose", "view")

    def __init__(self, view: memoryview, kind: Literal["bytes", "bytearray", "latin1", "utf8"]) -> None:
        self.view, self.kind, self.loose = view, kind, True

    def value(self) -> str | bytes | bytearray:
        """Plain Python value, copied out of the file."""
        if self.kind == "utf8":
            return str(self.view, "utf-8", "surrogatepass")
        if self.kind == "latin1":
            return str(self.view, "latin-1")
        return bytes(self.view) if self.kind == "bytes" else bytearray(self.view)


@dataclass(frozen=True)
class Allowed:
    """A name from the allow-list, standing on the stack in place of the real thing."""

    name: str
    build: Callable[..., Any] | None  # None: may be named (numpy.ndarray), never called


@dataclass(eq=False)
class DType:
    """A dtype under construction: its code now, its byte order from BUILD."""

    dtype: np.dtype[Any]

    def set_state(self, state: Any) -> None:
        """Take the byte order; structured and sub-array dtypes are not in any published feature file."""
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=")):
            raise Malformed("a dtype has an unusable state")
        if any(part is not None for part in state[2:5]):
            raise Malformed("it holds a structured dtype, which feature files do not use")
        if state[1] in ("<", ">") and self.dtype.kind != "O":
            self.dtype = self.dtype.newbyteorder(state[1])


@dataclass(eq=False)
class Array:
    """An array under construction; object arrays are filled last, when their depth has been checked."""

    value: NDArray[Any] | None = None
    items: list[Any] | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    finished: NDArray[Any] | None = field(default=None, repr=False)

    def set_state(self, state: Any) -> None:
        """Fill from `(version, shape, dtype, is_fortran, data)`, or the same without the version."""
        if self.value is not None or self.items is not None:
            raise Malformed("an array is filled twice")
        if not (isinstance(state, tuple) and len(state) in (4, 5)):
            raise Malformed("an array has an unusable state")
        shape, dtype, fortran, data = state[-4:]
        self.shape, self.fortran = _shape(shape), bool(fortran)
        if _dtype(dtype).kind != "O":
            self.value = _filled(data, _dtype(dtype), self.shape, "F" if self.fortran else "C")
            return
        if not isinstance(data, list):  # raw bytes would be taken for addresses
            raise Malformed("an object array is given as raw bytes")
        if math.prod(self.shape) != len(data):
            raise Malformed(f"an object array of shape {self.shape} has {len(data)} items")
        self.items = data


def _shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is int:
        shape = (shape,)
    if not (isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)):
        raise Malformed("an array has an unusable shape")
    return shape


def _dtype(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, DType):
        raise Malformed("an array has something else than a dtype for its dtype")
    return dtype.dtype


def _raw(data: Any) -> memoryview | bytes:
    """The bytes of an array or a scalar, whatever the protocol calls them."""
    if isinstance(data, Payload):
        data.loose = False
        return data.value().encode("latin-1") if data.kind == "utf8" else data.view  # type: ignore[union-attr]
    if isinstance(data, str):  # Python 2
        return data.encode("latin-1")
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    raise Malformed(f"an array has {type(data).__name__} for its data")


def _filled(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray[Any]:
    """A read-only array over `data`, which has to be exactly as long as shape and dtype say."""
    raw = _raw(data)
    count = math.prod(shape)
    if count * dtype.itemsize != len(raw):
        raise Malformed(f"an array of shape {shape} and type {dtype} has {len(raw)} bytes")
    if dtype.itemsize == 0 and count > MAX_KEY_PARTS * 1000:
        raise Malformed(f"an array of {count} empty strings")
    if len(raw) == 0:
        array: NDArray[Any] = np.zeros(shape, dtype)
        array.flags.writeable = False
        return array
    flat = np.frombuffer(raw, dtype)
    if dtype.kind == "U":
        points = flat.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if points.max() > MAX_UNICODE:
            raise Malformed("a string array holds characters that do not exist")
    if dtype.kind == "b" and flat.view(np.uint8).max() > 1:
        raise Malformed("a boolean array holds values other than 0 and 1")
    return flat.reshape(shape, order=order)


def _new_dtype(code: Any, align: Any = False, copy: Any = True) -> DType:
    """`numpy.dtype(code, align, copy)` for plain numeric, string and object codes."""
    if not (isinstance(code, str) and _DTYPE_CODE.fullmatch(code)):
        raise Malformed(f"it holds dtype {str(code)[:40]!r}, which feature files do not use")
    return DType(np.dtype("O" if "O" in code else code))


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    """`numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b")`: an array that BUILD fills."""
    if not (isinstance(kind, Allowed) and kind.name == "numpy.ndarray"):
        raise Malformed("an array of another class than numpy.ndarray")
    return Array()


def _scalar(dtype: Any, data: Any) -> Any:
    """`numpy.core.multiarray.scalar(dtype, bytes)`."""
    if _dtype(dtype).kind == "O":
        raise Malformed("a scalar of type object")
    return _filled(data, _dtype(dtype), (1,), "C")[0]


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> Array:
    """`numpy.core.numeric._frombuffer`, protocol 5: an array over an in-band buffer."""
    if _dtype(dtype).kind == "O":
        raise Malformed("an object array is given as raw bytes")
    if order == "K":
        axes = _shape(axis_order)
        if sorted(axes) != list(range(len(_shape(shape)))):
            raise Malformed("an array has an unusable order of axes")
        return Array(value=_filled(buffer, _dtype(dtype), _shape(shape), "C").transpose(axes))
    if order not in ("C", "F"):
        raise Malformed("an array has an unusable order")
    return Array(value=_filled(buffer, _dtype(dtype), _shape(shape), order))


def _encode(text: Any, encoding: Any = None) -> bytes:
    """`_codecs.encode(text, "latin1")`: how protocols 0 to 2 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise Malformed(f"bytes are written in encoding {str(encoding)[:40]!r}")
    if isinstance(text, Payload):
        text = text.value()
    if not isinstance(text, str):
        raise Malformed("bytes are written as something else than text")
    return text.encode("latin-1")


def _bytes(*args: Any) -> bytes:
    """`bytes()` or `bytes(b"...")`; `bytes(10**12)` would fill the memory."""
    if not args:
        return b""
    if len(args) == 2:
        return _encode(*args)
    value = args[0].value() if isinstance(args[0], Payload) else args[0]
    if len(args) != 1 or not isinstance(value, bytes | bytearray):
        raise Malformed("bytes are built from something else than bytes")
    return bytes(value)


def _bytearray(*args: Any) -> bytearray:
    return bytearray(_bytes(*args))


def _items(args: tuple[Any, ...]) -> Any:
    if len(args) > 1 or (args and not isinstance(args[0], list | tuple | set | frozenset)):
        raise Malformed("a container is built from something else than a container")
    return args[0] if args else ()


def _pairs(*args: Any) -> dict[Any, Any]:
    """`dict` or `OrderedDict` from nothing, a dict or a list of pairs; Python's dict keeps the order."""
    if len(args) == 1 and isinstance(args[0], dict):
        return dict(args[0])
    pairs = _items(args)
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise Malformed("a dictionary is built from something else than pairs")
    return {key_of(key): value for key, value in pairs}


def _complex(real: Any = 0.0, imag: Any = 0.0) -> complex:
    if not all(type(part) in (int, float) for part in (real, imag)):
        raise Malformed("a complex number has parts that are not numbers")
    return complex(real, imag)


def key_of(value: Any) -> Any:
    """A dictionary key or set item, checked to be small, flat enough and immutable.

    Hashing a tuple of shared tuples takes time exponential in their depth, so the parts are counted first.
    """
    if isinstance(value, str | int | float | bytes) or value is None:
        return value
    if isinstance(value, Payload):
        return key_of(value.value())
    budget = MAX_KEY_PARTS
    pending = [value]
    while pending:
        part = pending.pop()
        budget -= 1
        if budget < 0:
            raise Malformed("a dictionary key has too many parts")
        if isinstance(part, tuple | frozenset):
            pending.extend(part)
        elif not (part is None or isinstance(part, str | int | float | complex | bytes | np.generic)):
            raise Malformed(f"{type(part).__name__} is used as a dictionary key")
    return value


def _table() -> dict[tuple[str, str], Allowed]:
    builders: dict[str, Callable[..., Any]] = {
        "list": lambda *args: list(_items(args)),
        "tuple": lambda *args: tuple(_items(args)),
        "set": lambda *args: {key_of(item) for item in _items(args)},
        "frozenset": lambda *args: frozenset(key_of(item) for item in _items(args)),
        "dict": _pairs,
        "bytes": _bytes,
        "bytearray": _bytearray,
        "complex": _complex,
    }
    table = {(module, name): build for module in ("builtins", "__builtin__") for name, build in builders.items()}
    table["collections", "OrderedDict"] = _pairs
    table["_codecs", "encode"] = _encode
    table["numpy", "dtype"] = _new_dtype
    for core in ("numpy.core", "numpy._core"):  # renamed in numpy 2
        table[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        table[f"{core}.multiarray", "scalar"] = _scalar
        table[f"{core}.numeric", "_frombuffer"] = _frombuffer
    allowed = {key: Allowed(".".join(key), build) for key, build in table.items()}
    allowed["numpy", "ndarray"] = Allowed("numpy.ndarray", None)
    return allowed


ALLOWED = _table()
"""(module, name) -> what stands for it. Anything else is refused by name."""
