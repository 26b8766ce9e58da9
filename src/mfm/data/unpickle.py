"""Read a pickle without running it.

An interpreter of the pickle opcode stream (protocols 0 to 5) over a memory map. It knows numpy
arrays, scalars and dtypes, and Python's builtin containers (`mfm.data.pickle_objects`), and refuses
everything else by name before anything of it is imported or called. Arrays are read-only views of
the file, so a 4 GB feature file opens at once and takes no memory until its numbers are looked at.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mfm.data.pickle_objects import Allowed, Array, DType, Malformed, Payload, Refused
from mfm.data.pickle_opcodes import Stream
from mfm.errors import CorpusNotFoundError, DataFormatError, UnsafePickleError

MAX_DEPTH = 100

_FOREIGN = {
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a zip archive (torch.save and numpy.savez write those)",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x93NUMPY": "a .npy file",
}


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of numpy arrays and builtin containers; nothing of the file is executed.

    Args:
        path: Pickle of protocol 0 to 5, written by Python 2 or 3. Python 2's `str` is decoded as Latin-1.

    Returns:
        The object. Its arrays are read-only; those of more than 1 KB are views of the mapped file,
        which stays open while any of them lives. `OrderedDict` comes back as `dict`.

    Raises:
        CorpusNotFoundError: There is no such file.
        UnsafePickleError: The file names anything outside the allow-list.
        DataFormatError: The file is empty, truncated, damaged, too deep or no pickle.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise CorpusNotFoundError(f"{path} does not exist; check the path")
        if not path.is_file():
            raise DataFormatError(f"{path} is not a file; give the path of a .pkl file")
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise DataFormatError(f"{path} is empty; download it again")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataFormatError(f"{path} cannot be read: {error.strerror or error}") from None
    for magic, what in _FOREIGN.items():
        if data[: len(magic)] == magic:
            raise DataFormatError(f"{path} is not a pickle but {what}")
    return _read(data, path)


def _read(data: mmap.mmap, path: Path) -> Any:
    stream = Stream(data)
    try:
        return _finish(stream.run(), {}, MAX_DEPTH)
    except Refused as error:
        raise UnsafePickleError(
            f"{path}: refuses {error} (byte {stream.start}); only numpy arrays and builtin containers are read from "
            "pickles, and nothing of this file was run"
        ) from None
    except Malformed as error:
        reason = str(error)
    except (IndexError, struct.error):  # reading past the end of the map, or popping an empty stack
        reason = "the stream ends too early" if stream.at_end() else "the stack is empty"
    except KeyError:
        reason = "it refers to something that is not there"
    except (ValueError, TypeError, OverflowError, AttributeError, SyntaxError) as error:
        reason = f"it holds an unusable value ({type(error).__name__})"
    except (MemoryError, RecursionError):
        reason = "it asks for more memory than there is"
    raise DataFormatError(
        f"{path} is not a readable pickle: {reason} at byte {stream.start} of {len(data)}; download or write it again"
    ) from None


def _finish(value: Any, done: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """Turn what the machine built into plain values, and check that it is a tree of bounded depth.

    Args:
        value: What STOP left, or a part of it.
        done: Identity of a value -> the value and its finished form, `_OPEN` while its parts are visited.
        depth: Levels left.
    """
    kind = type(value)
    if kind not in _UNFINISHED:
        return value
    if depth == 0:
        raise Malformed(f"it is nested more than {MAX_DEPTH} levels deep")
    if id(value) in done:
        result = done[id(value)][1]
        if result is _OPEN:
            raise Malformed("it contains itself")
        return result
    done[id(value)] = (value, _OPEN)  # holding on to the value keeps its identity from being used again
    result = _UNFINISHED[kind](value, done, depth - 1)
    done[id(value)] = (value, result)
    return result


def _finish_list(value: list[Any], done: dict[int, tuple[Any, Any]], depth: int) -> list[Any]:
    for index, item in enumerate(value):
        if type(item) in _UNFINISHED:
            value[index] = _finish(item, done, depth)
    return value


def _finish_dict(value: dict[Any, Any], done: dict[int, tuple[Any, Any]], depth: int) -> dict[Any, Any]:
    for key, item in value.items():
        if type(item) in _UNFINISHED:
            value[key] = _finish(item, done, depth)
    return value


def _finish_tuple(value: tuple[Any, ...], done: dict[int, tuple[Any, Any]], depth: int) -> tuple[Any, ...]:
    items = tuple(_finish(item, done, depth) for item in value)
    return items if any(new is not old for new, old in zip(items, value, strict=True)) else value


def _finish_array(value: Array, done: dict[int, tuple[Any, Any]], depth: int) -> np.ndarray[Any, Any]:
    if value.value is not None:
        return value.value
    if value.items is None:
        raise Malformed("an array was never filled")
    array = np.empty(len(value.items), dtype=object)
    for index, item in enumerate(value.items):
        array[index] = _finish(item, done, depth)
    array = array.reshape(value.shape)  # the items are in C order even where the memory is not
    if value.fortran:
        array = np.asfortranarray(array)
    array.flags.writeable = False
    return array


def _finish_name(value: Allowed, done: dict[int, tuple[Any, Any]], depth: int) -> NoReturn:
    raise Malformed(f"it holds the name {value.name} where a value belongs")


_OPEN = object()
_UNFINISHED: dict[type, Callable[[Any, dict[int, tuple[Any, Any]], int], Any]] = {
    list: _finish_list,
    dict: _finish_dict,
    tuple: _finish_tuple,
    Array: _finish_array,
    DType: lambda value, done, depth: value.dtype,
    Payload: lambda value, done, depth: value.value(),
    Allowed: _finish_name,
}
