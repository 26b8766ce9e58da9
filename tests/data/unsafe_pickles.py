"""Pickles that would call something, written by hand or by the standard pickler."""

from __future__ import annotations

import ctypes
import functools
import importlib
import io
import operator
import os
import pathlib
import pickle
import subprocess

import numpy as np


class Calls:
    """Pickles as a call of `target(*arguments)`."""

    def __init__(self, target, *arguments, state=None):
        self.result = (target, arguments) if state is None else (target, arguments, state)

    def __reduce__(self):
        return self.result


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def global_(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


class Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "tensor-0" if obj is Persistent else None


def persistent() -> bytes:
    out = io.BytesIO()
    Persistent(out, protocol=2).dump({"train": Persistent})
    return out.getvalue()


def unsafe_pickles(trap: str) -> dict[str, tuple[bytes, str]]:
    """Case -> (pickle, what the refusal has to name); each would make the file `trap` if it ran."""
    touch = f"touch {trap}"
    code = f"open({trap!r}, 'w').close()"
    array = pickle.dumps(np.arange(3.0), protocol=2)
    cases = {
        "os.system": (pickle.dumps(Calls(os.system, touch)), "system"),
        "os.system, protocol 0": (pickle.dumps(Calls(os.system, touch), protocol=0), "system"),
        "eval": (pickle.dumps(Calls(eval, code)), "builtins.eval"),
        "exec": (pickle.dumps(Calls(exec, code)), "builtins.exec"),
        "exec, Python 2's name": (pickle.dumps(Calls(exec, code), protocol=2), "__builtin__.exec"),
        "compile": (pickle.dumps(Calls(compile, code, "x", "exec")), "builtins.compile"),
        "getattr": (
            b"\x80\x04" + global_("builtins", "getattr") + global_("os", "path") + text("join") + b"\x86R.",
            "builtins.getattr",
        ),
        "partial": (pickle.dumps(functools.partial(os.system, touch)), "functools.partial"),
        "numpy.load": (pickle.dumps(Calls(np.load, trap)), "numpy.load"),
        "numpy.fromfile": (b"\x80\x04" + global_("numpy", "fromfile") + text(trap) + b"\x85R.", "numpy.fromfile"),
        "numpy.memmap": (
            b"\x80\x04" + global_("numpy", "memmap") + text(trap) + text("u1") + text("w+") + b"\x87R.",
            "numpy.memmap",
        ),
        "open": (b"\x80\x04" + global_("builtins", "open") + text(trap) + text("w") + b"\x86R.", "builtins.open"),
        "io.open": (pickle.dumps(Calls(io.open, trap, "w")), "open"),
        "Popen": (pickle.dumps(Calls(subprocess.Popen, ["touch", trap])), "subprocess.Popen"),
        "import_module": (pickle.dumps(Calls(importlib.import_module, "antigravity")), "importlib.import_module"),
        "__import__": (pickle.dumps(Calls(__import__, "antigravity")), "builtins.__import__"),
        "attrgetter": (pickle.dumps(operator.attrgetter("x.y")), "operator.attrgetter"),
        "methodcaller": (pickle.dumps(operator.methodcaller("touch")), "operator.methodcaller"),
        "torch storage": (
            b"\x80\x02" + global_("torch._utils", "_rebuild_tensor_v2") + b")R.",
            "torch._utils._rebuild_tensor_v2",
        ),
        "torch load": (
            b"\x80\x02" + global_("torch.storage", "_load_from_bytes") + b"C\x01a\x85R.",
            "torch.storage._load_from_bytes",
        ),
        "persistent id": (persistent(), "persistent id 'tensor-0'"),
        "persistent id, text": (b"Pstorage 1\n.", "persistent id 'storage 1'"),
        "extension 1": (b"\x80\x02\x82\x07)R.", "extension code 7"),
        "extension 2": (b"\x80\x02\x83\x07\x01)R.", "extension code 263"),
        "extension 4": (b"\x80\x02\x84\x07\x00\x00\x00)R.", "extension code 7"),
        "_reconstructor": (
            global_("copy_reg", "_reconstructor") + b"(" + global_("os", "_wrap_close") + b"NNtR.",
            "copy_reg._reconstructor",
        ),
        "NEWOBJ of a stranger": (
            b"\x80\x02" + global_("subprocess", "Popen") + text(touch) + b"\x85\x81.",
            "subprocess.Popen",
        ),
        "Path": (pickle.dumps(pathlib.PurePosixPath(trap)), "pathlib"),
        "ctypes": (pickle.dumps(Calls(ctypes.create_string_buffer, 10)), "ctypes.create_string_buffer"),
        "INST": (b"(S'" + touch.encode() + b"'\nios\nsystem\n.", "os.system"),
        "OBJ": (b"(" + global_("numpy", "ndarray") + b"K\x05o.", "numpy.ndarray"),
        "OBJ of a stranger": (b"(" + global_("os", "system") + text(touch) + b"o.", "os.system"),
        "NEWOBJ": (b"\x80\x02" + global_("numpy", "ndarray") + b"K\x05\x85\x81.", "numpy.ndarray"),
        "NEWOBJ_EX": (b"\x80\x04" + global_("numpy", "ndarray") + b")}\x92.", "numpy.ndarray"),
        "STACK_GLOBAL": (b"\x80\x04" + text("posix") + text("system") + b"\x93" + text(touch) + b"\x85R.", "system"),
        "dotted name": (b"\x80\x04" + text("numpy") + text("ndarray.tofile") + b"\x93)R.", "numpy.ndarray.tofile"),
        "hidden behind a good array": (array[:-1] + b"0" + pickle.dumps(Calls(os.system, touch)), "system"),
        "REDUCE inside BUILD's state": (
            array.replace(b"b.", b"b") + global_("os", "system") + text(touch) + b"\x85Rb.",
            "os.system",
        ),
        "BUILD on a list": (b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.", "a state set on a value of type list"),
        "__setstate__ by BUILD on a name": (
            b"\x80\x02" + global_("numpy", "dtype") + b"}X\x05\x00\x00\x00buildK\x01sb.",
            "a state set on numpy.dtype",
        ),
        "calling the array class": (
            b"\x80\x02" + global_("numpy", "ndarray") + b"K\x05\x85R.",
            "a call of numpy.ndarray",
        ),
        "calling a value": (b"\x80\x02X\x01\x00\x00\x00a)R.", "a call of a value of type str"),
        "defaultdict with a factory": (
            b"\x80\x02" + global_("collections", "defaultdict") + global_("os", "getcwd") + b"\x85R.",
            "collections.defaultdict",
        ),
        "bytes.fromhex": (b"\x80\x04" + text("builtins") + text("bytes.fromhex") + b"\x93)R.", "bytes.fromhex"),
        "codecs.decode": (b"\x80\x02" + global_("_codecs", "decode") + b")R.", "_codecs.decode"),
        "numpy.frombuffer": (b"\x80\x02" + global_("numpy", "frombuffer") + b")R.", "numpy.frombuffer"),
        "pandas": (b"\x80\x04" + global_("pandas.core.frame", "DataFrame") + b")\x81.", "pandas.core.frame.DataFrame"),
    }
    return cases
