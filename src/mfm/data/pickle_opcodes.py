"""The stack machine that follows a pickle's opcodes; what it may build is in `pickle_objects`.

The opcodes are documented in the standard library's `pickletools`, whose names the comments use.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable
from typing import Any, Literal, NoReturn

from mfm.data.pickle_objects import ALLOWED, VIEW_THRESHOLD, Allowed, Array, DType, Malformed, Payload, Refused, key_of

MAX_MARKS = 1_000
MAX_STACK = 20_000_000
MAX_MEMO = 20_000_000
MAX_INTEGER_BYTES = 1_000


class Stream:
    """A pickle being followed: where we are, the stack, the marks and the memo."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.view = memoryview(data)
        self.position = 0
        self.start = 0  # of the opcode at hand
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Follow the opcodes to STOP and return what they leave; values are finished by `unpickle`."""
        data, dispatch, unknown = self.data, _OPCODES, _unknown
        while True:
            self.start = self.position
            opcode = data[self.position]
            self.position += 1
            if opcode == 0x2E:  # STOP
                if len(self.stack) != 1 or self.marks:
                    raise Malformed("it stops with values left over")
                return self.stack.pop()
            dispatch.get(opcode, unknown)(self)
            if len(self.stack) > MAX_STACK or len(self.memo) > MAX_MEMO:
                raise Malformed("it holds more values than a feature file has")

    def at_end(self) -> bool:
        """Whether everything was read, which is where a truncated file ends up."""
        return self.position >= len(self.data)

    # --- reading ---

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, as a window on the file."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            self.position = len(self.data)
            raise Malformed("the stream ends too early")
        window = self.view[self.position : end]
        self.position = end
        return window

    def number(self, format_: str, size: int) -> int:
        """The next `size` bytes as an integer in `struct` notation."""
        return int(struct.unpack(format_, self.take(size))[0])

    def line(self) -> bytes:
        """The bytes up to the next line feed, which is skipped."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            self.position = len(self.data)
            raise Malformed("the stream ends too early")
        text = self.data[self.position : end]
        self.position = end + 1
        return text

    # --- stack ---

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """Take everything off the stack down to the last mark."""
        items = self.stack
        if not self.marks:
            raise Malformed("a mark is missing")
        self.stack = self.marks.pop()
        return items

    def push_payload(self, size: int, kind: Literal["bytes", "bytearray", "latin1", "utf8"]) -> None:
        """Put `size` bytes of text or data on the stack, left in the file when they are many."""
        payload = Payload(self.take(size), kind)
        self.push(payload if size > VIEW_THRESHOLD else payload.value())

    def store(self, index: int) -> None:
        """Remember the top of the stack."""
        self.memo[index] = self.stack[-1]

    def fetch(self, index: int) -> None:
        """Put a remembered value on the stack."""
        value = self.memo[index]
        if type(value) is Payload:
            value.loose = True
        self.push(value)


# --- opcodes: names and numbers ---


def _unknown(s: Stream) -> NoReturn:
    raise Malformed(f"{s.data[s.start : s.start + 1]!r} is not an opcode")


def _proto(s: Stream) -> None:
    version = s.number("<B", 1)
    if version > 5:
        raise Malformed(f"it is of protocol {version}, newer than 5")


def _frame(s: Stream) -> None:
    if s.number("<Q", 8) > len(s.data) - s.position:
        s.position = len(s.data)
        raise Malformed("the stream ends too early")


def _int_line(s: Stream) -> None:
    text = s.line()
    s.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else _integer(text))


def _integer(text: bytes) -> int:
    if len(text) > MAX_INTEGER_BYTES:
        raise Malformed("an integer has too many digits")
    return int(text)


def _long_line(s: Stream) -> None:
    s.push(_integer(s.line().removesuffix(b"L")))


def _long(s: Stream, size: int) -> None:
    if size > MAX_INTEGER_BYTES:
        raise Malformed("an integer has too many digits")
    s.push(int.from_bytes(s.take(size), "little", signed=True))


_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))?", re.DOTALL)
_ESCAPED = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _string_line(s: Stream) -> None:
    """Python 2's `repr` of a string."""
    text = s.line()
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise Malformed("a string has no quotes")
    raw = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()) if match[1] else _ESCAPED[match[2]], text[1:-1])
    s.push(raw.decode("latin-1"))


# --- opcodes: containers ---


def _mark(s: Stream) -> None:
    if len(s.marks) >= MAX_MARKS:
        raise Malformed(f"it has more than {MAX_MARKS} open marks")
    s.marks.append(s.stack)
    s.stack = []


def _pop(s: Stream) -> None:
    if s.stack:
        s.stack.pop()
    else:
        s.pop_mark()


def _pop_to_mark(s: Stream) -> None:
    s.pop_mark()


def _duplicate(s: Stream) -> None:
    if type(s.stack[-1]) is Payload:
        s.stack[-1].loose = True
    s.push(s.stack[-1])


def _top(s: Stream, kind: type) -> Any:
    if type(s.stack[-1]) is not kind:
        raise Malformed(f"{type(s.stack[-1]).__name__} stands where a {kind.__name__} belongs")
    return s.stack[-1]


def _append(s: Stream) -> None:
    value = s.stack.pop()
    _top(s, list).append(value)


def _appends(s: Stream) -> None:
    items = s.pop_mark()
    _top(s, list).extend(items)


def _add_items(s: Stream) -> None:
    items = s.pop_mark()
    _top(s, set).update([key_of(item) for item in items])


def _dictionary(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise Malformed("a dictionary has a key without a value")
    return {key_of(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _set_item(s: Stream) -> None:
    value, key = s.stack.pop(), s.stack.pop()
    _top(s, dict)[key_of(key)] = value


def _set_items(s: Stream) -> None:
    items = s.pop_mark()
    _top(s, dict).update(_dictionary(items))


def _tuple(s: Stream, size: int) -> None:
    if len(s.stack) < size:
        raise Malformed("the stack is empty")
    s.stack[-size:] = [tuple(s.stack[-size:])]


def _memoize(s: Stream) -> None:
    s.store(len(s.memo))


# --- opcodes: names and calls, where danger lies ---


def _find(module: Any, name: Any) -> Allowed:
    if type(module) is not str or type(name) is not str:
        raise Malformed("a name is not text")
    if (module, name) not in ALLOWED:
        raise Refused(f"{module[:80]}.{name[:80]}")
    return ALLOWED[module, name]


def _global(s: Stream) -> None:
    module, name = s.line().decode("utf-8"), s.line().decode("utf-8")
    s.push(_find(module, name))


def _stack_global(s: Stream) -> None:
    name, module = s.stack.pop(), s.stack.pop()
    s.push(_find(module, name))


def _instance(s: Stream) -> NoReturn:
    module, name = s.line().decode("utf-8", "replace"), s.line().decode("utf-8", "replace")
    raise Refused(f"an instance of {module[:80]}.{name[:80]}")


def _object(s: Stream) -> NoReturn:
    items = s.pop_mark()
    raise Refused(f"an instance of {_describe(items[0] if items else None)}")


def _new_object(s: Stream) -> NoReturn:
    raise Refused(f"an instance of {_describe(s.stack[-2])}")


def _new_object_ex(s: Stream) -> NoReturn:
    raise Refused(f"an instance of {_describe(s.stack[-3])}")


def _describe(value: Any) -> str:
    return value.name if isinstance(value, Allowed) else f"a value of type {type(value).__name__}"


def _reduce(s: Stream) -> None:
    arguments, target = s.stack.pop(), s.stack.pop()
    if not isinstance(target, Allowed) or target.build is None:
        raise Refused(f"a call of {_describe(target)}")
    if type(arguments) is not tuple:
        raise Malformed(f"{target.name} is called with something else than a tuple")
    s.push(target.build(*arguments))


def _build(s: Stream) -> None:
    state = s.stack.pop()
    target = s.stack[-1]
    if not isinstance(target, Array | DType):
        raise Refused(f"a state set on {_describe(target)}")
    target.set_state(state)


def _extension(s: Stream, size: int) -> NoReturn:
    raise Refused(f"extension code {int.from_bytes(s.take(size), 'little')}")


def _persistent_line(s: Stream) -> NoReturn:
    raise Refused(f"persistent id {s.line()[:80].decode('utf-8', 'replace')!r}")


def _persistent(s: Stream) -> NoReturn:
    value = s.stack.pop()
    raise Refused(f"persistent id {str(value)[:80] if isinstance(value, str | int) else _describe(value)!r}")


def _next_buffer(s: Stream) -> NoReturn:
    raise Malformed("its arrays are kept in buffers outside of the file")


def _readonly_buffer(s: Stream) -> None:
    if not isinstance(s.stack[-1], Payload | bytes | bytearray):
        raise Malformed("a buffer is not bytes")


_OPCODES: dict[int, Callable[[Stream], None]] = {
    ord(code): action
    for code, action in {
        "\x80": _proto,
        "\x95": _frame,
        # constants and numbers
        "N": lambda s: s.push(None),
        "\x88": lambda s: s.push(True),
        "\x89": lambda s: s.push(False),
        "I": _int_line,
        "J": lambda s: s.push(s.number("<i", 4)),
        "K": lambda s: s.push(s.number("<B", 1)),
        "M": lambda s: s.push(s.number("<H", 2)),
        "L": _long_line,
        "\x8a": lambda s: _long(s, s.number("<B", 1)),
        "\x8b": lambda s: _long(s, s.number("<i", 4)),
        "F": lambda s: s.push(float(s.line())),
        "G": lambda s: s.push(struct.unpack(">d", s.take(8))[0]),
        # text and bytes
        "S": _string_line,
        "T": lambda s: s.push_payload(s.number("<i", 4), "latin1"),
        "U": lambda s: s.push_payload(s.number("<B", 1), "latin1"),
        "V": lambda s: s.push(s.line().decode("raw-unicode-escape")),
        "X": lambda s: s.push_payload(s.number("<I", 4), "utf8"),
        "\x8c": lambda s: s.push_payload(s.number("<B", 1), "utf8"),
        "\x8d": lambda s: s.push_payload(s.number("<Q", 8), "utf8"),
        "B": lambda s: s.push_payload(s.number("<I", 4), "bytes"),
        "C": lambda s: s.push_payload(s.number("<B", 1), "bytes"),
        "\x8e": lambda s: s.push_payload(s.number("<Q", 8), "bytes"),
        "\x96": lambda s: s.push_payload(s.number("<Q", 8), "bytearray"),
        "\x97": _next_buffer,
        "\x98": _readonly_buffer,
        # containers
        "(": _mark,
        "0": _pop,
        "1": _pop_to_mark,
        "2": _duplicate,
        "]": lambda s: s.push([]),
        "l": lambda s: s.push(s.pop_mark()),
        "a": _append,
        "e": _appends,
        "}": lambda s: s.push({}),
        "d": lambda s: s.push(_dictionary(s.pop_mark())),
        "s": _set_item,
        "u": _set_items,
        ")": lambda s: s.push(()),
        "t": lambda s: s.push(tuple(s.pop_mark())),
        "\x85": lambda s: _tuple(s, 1),
        "\x86": lambda s: _tuple(s, 2),
        "\x87": lambda s: _tuple(s, 3),
        "\x8f": lambda s: s.push(set()),
        "\x90": _add_items,
        "\x91": lambda s: s.push(frozenset(key_of(item) for item in s.pop_mark())),
        # memo
        "p": lambda s: s.store(_integer(s.line())),
        "q": lambda s: s.store(s.number("<B", 1)),
        "r": lambda s: s.store(s.number("<I", 4)),
        "\x94": _memoize,
        "g": lambda s: s.fetch(_integer(s.line())),
        "h": lambda s: s.fetch(s.number("<B", 1)),
        "j": lambda s: s.fetch(s.number("<I", 4)),
        # names and calls
        "c": _global,
        "\x93": _stack_global,
        "R": _reduce,
        "b": _build,
        "i": _instance,
        "o": _object,
        "\x81": _new_object,
        "\x92": _new_object_ex,
        "\x82": lambda s: _extension(s, 1),
        "\x83": lambda s: _extension(s, 2),
        "\x84": lambda s: _extension(s, 4),
        "P": _persistent_line,
        "Q": _persistent,
    }.items()
}
