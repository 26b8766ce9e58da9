import collections
import contextlib
import mmap
import pickle
import random
import struct
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from unsafe_pickles import unsafe_pickles

from mfm.data.unpickle import read_pickle
from mfm.errors import CorpusNotFoundError, DataFormatError, MFMError, UnsafePickleError

PROTOCOLS = range(6)


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "file.pkl"

    def read_bytes(data: bytes):
        path.unlink(missing_ok=True)  # views of an earlier map keep the old file
        path.write_bytes(data)
        return read_pickle(path)

    return read_bytes


def same(a, b) -> bool:
    """Equality with types, NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype == object:
            return all(same(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
        return a.astype(a.dtype.newbyteorder("<")).tobytes() == b.astype(b.dtype.newbyteorder("<")).tobytes()
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float | complex):
        return repr(a) == repr(b)
    return a == b


def objects(items, shape=None):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape) if shape else array


RNG = np.random.default_rng(0)
VALUES = {
    "containers": {"a": [1, (2, 3.5, ()), [None, True, False]], "b": {1, 2}, "c": frozenset({"x"}), (1, "y"): {}},
    "numbers": [0, 255, 65535, 2**31 - 1, -(2**31), 2**70, -(2**70), 1e300, float("-inf"), 1.5 - 2j],
    "bytes": [b"", b"abc\xff\x00", bytearray(b"xyz"), bytearray(), b"\xe9" * 5000, bytearray(b"q") * 3000],
    "text": ["", "é\n中\U0001f600", "x" * 300, "y" * 5000, "\\u0041 \\ '\"", "\ud800"],
    "floats": {t: RNG.normal(size=(7, 5, 3)).astype(t) for t in ("f2", "f4", "f8", ">f4", "c16")},
    "integers": [np.arange(-5, 5).astype(t) for t in ("i1", "i2", "i4", "i8", ">i8")] + [np.arange(9, dtype="u4")],
    "bool": RNG.random((4, 3)) > 0.5,
    "fortran": np.asfortranarray(RNG.normal(size=(40, 5, 3))),
    "transposed": RNG.normal(size=(40, 5, 3)).transpose(2, 0, 1),
    "strided": RNG.normal(size=(40, 6))[::2, ::3],
    "large": RNG.normal(size=(100, 20, 5)).astype("f4"),
    "strings": [np.array(["abc", "é中", ""]), np.array([b"abc", b""]), np.array(["x" * 2000]), np.array("0-d")],
    "objects": objects(["a", None, 3, [1.0, 2.0], RNG.normal(size=(50, 7)), {"k": np.float32(2)}], (2, 3)),
    "fortran objects": np.asfortranarray(objects(list("abcdef"), (2, 3))),
    "ragged": objects([RNG.normal(size=(n, 4)) for n in (3, 0, 90)]),
    "scalars": [np.float32(1.5), np.float64("nan"), np.int64(-3), np.bool_(True), np.str_("é"), np.bytes_(b"b")],
    "empty": [np.zeros((0, 5, 3), "f4"), np.zeros((4, 0)), np.array([], dtype=object), np.array(2.5), np.array(None)],
    "dtypes": [np.dtype("f4"), np.dtype(">i8"), np.dtype("O"), np.dtype("U7")],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", VALUES)
def test_round_trip(read, name, protocol):
    value = VALUES[name]
    assert same(read(pickle.dumps(value, protocol=protocol)), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_dict_becomes_dict(read, protocol):
    value = collections.OrderedDict([("b", 1), ("a", [2])])
    result = read(pickle.dumps(value, protocol=protocol))
    assert type(result) is dict
    assert list(result.items()) == list(value.items())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_parts_stay_shared(read, protocol):
    array, row = np.arange(2000.0), [1]
    result = read(pickle.dumps([array, array, row, (row,)], protocol=protocol))
    assert result[0] is result[1]
    assert result[2] is result[3][0]


def test_payload_seen_twice_is_array_and_bytes(read):
    raw = np.arange(500.0).tobytes()
    payload = b"B" + struct.pack("<I", len(raw)) + raw
    array = array_pickle(b"M\xf4\x01\x85", b"f8", b"h\x00")[2:-1]
    for stream in (payload + b"q\x00" + array + b"\x86.", payload + b"q\x000" + array + b"h\x00\x86."):
        first, second = sorted(read(b"\x80\x02" + stream), key=lambda part: isinstance(part, np.ndarray))
        assert first == raw
        np.testing.assert_array_equal(second, np.arange(500.0))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=2000)
arrays = hnp.arrays(
    dtype=hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.boolean_dtypes() | hnp.byte_string_dtypes(min_len=1),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
)
trees = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=5)
        | st.tuples(inner, inner)
        | st.lists(inner, max_size=4).map(objects)
        | st.frozensets(st.text() | st.integers(), max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=trees, protocol=st.sampled_from(PROTOCOLS))
def test_round_trip_of_anything(read, value, protocol):
    assert same(read(pickle.dumps(value, protocol=protocol)), value)


def test_large_arrays_are_views_of_the_file(tmp_path):
    path = tmp_path / "file.pkl"
    value = {"a": RNG.normal(size=(300, 20)), "b": objects([RNG.normal(size=(90, 4)) for _ in range(3)])}
    for protocol in (3, 4, 5):
        path.unlink(missing_ok=True)
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        result = read_pickle(path)
        for array in [result["a"], *result["b"]]:
            root = array
            while isinstance(root, np.ndarray):
                root = root.base
            assert isinstance(root, memoryview)
            assert isinstance(root.obj, mmap.mmap)
            assert not array.flags.writeable


def python2_pickle() -> bytes:
    """What Python 2's cPickle wrote at protocol 2 for `{'train': {'text': <array>, 'id': ['é', u'é'], 'n': 3L}}`."""
    numbers = np.arange(300.0, dtype="<f4").reshape(3, 10, 10)
    raw = numbers.tobytes()
    dtype = b"cnumpy\ndtype\nq\x04(U\x02f4K\x00K\x01tRq\x05(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        b"\x80\x02}q\x00U\x05train}q\x01(U\x04text"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
        b"(K\x01K\x03K\nK\n\x87" + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
        b"U\x02id]q\x06(U\x02\xc3\xa9X\x02\x00\x00\x00\xc3\xa9e"
        b"U\x01s" + b"cnumpy.core.multiarray\nscalar\nh\x05U\x04" + np.float32(2.5).tobytes() + b"\x86R"
        b"U\x01n\x8a\x01\x03"
        b"U\x01oc__builtin__\nset\n]K\x01a\x85R"
        b"us."
    )


def test_python2_file(read):
    data = python2_pickle()
    train = read(data)["train"]
    np.testing.assert_array_equal(train["text"], np.arange(300.0).reshape(3, 10, 10))
    assert train["text"].dtype == np.float32
    assert train["id"] == ["\xc3\xa9", "é"]  # Latin-1, as encoding="latin1" gives
    assert train["s"] == np.float32(2.5)
    assert train["n"] == 3
    assert train["o"] == {1}


def test_python2_text_protocol(read):
    assert read(b"(dp0\nS'a\\xe9\\n'\np1\n(lp2\nI5\naI01\naL7L\naF0.5\nas.") == {"a\xe9\n": [5, True, 7, 0.5]}


EVENTS: list[str] = []
sys.addaudithook(lambda event, arguments: EVENTS.append(event) if len(EVENTS) < 10_000 else None)


@pytest.mark.parametrize("case", unsafe_pickles("trap"))
def test_unsafe_pickles_are_refused_by_name(tmp_path, case):
    trap = tmp_path / "trap"
    data, name = unsafe_pickles(str(trap))[case]
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    modules = set(sys.modules)
    EVENTS.clear()
    with pytest.raises(UnsafePickleError) as caught:
        read_pickle(path)
    events = list(EVENTS)
    assert name in str(caught.value)
    assert "byte" in str(caught.value)
    assert not trap.exists()
    assert set(sys.modules) == modules
    assert not {"os.system", "subprocess.Popen", "exec", "compile", "import", "pickle.find_class"} & set(events)
    assert events.count("open") <= 1  # the pickle itself


def test_nothing_is_imported_by_name(read):
    with pytest.raises(UnsafePickleError, match=r"antigravity\.fly"):
        read(b"cantigravity\nfly\n)R.")
    assert "antigravity" not in sys.modules


SMALL = {"a": [1, "x", 2.5], "b": np.arange(4.0), "o": objects(["a", np.arange(2)]), "s": {1}, "t": (np.float32(1),)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_one_sentence(read, protocol):
    data = pickle.dumps(SMALL, protocol=protocol)
    for end in range(len(data)):
        with pytest.raises(DataFormatError) as caught:
            read(data[:end])
        assert not isinstance(caught.value, UnsafePickleError)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_damage_gives_a_value_or_one_of_our_errors(read, protocol):
    clean = pickle.dumps(SMALL, protocol=protocol)
    generator = random.Random(protocol)
    for _ in range(600):
        data = bytearray(clean)
        for _ in range(generator.choice([1, 1, 2, 5])):
            data[generator.randrange(len(data))] = generator.randrange(256)
        with contextlib.suppress(MFMError):
            repr(read(bytes(data)))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.lists(st.sampled_from(b"()]}.NK\x01abcdehqlstu\x85\x86\x94\x8f\x90\x91RU012pI5\n\x93"), max_size=40))
def test_random_opcodes_give_a_value_or_one_of_our_errors(read, data):
    with contextlib.suppress(MFMError):
        read(bytes([*data, 0x2E]))


def array_pickle(shape: bytes, code: bytes, data: bytes) -> bytes:
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nU"
        + bytes([len(code)])
        + code
        + b"K\x00K\x01\x87R"
        + b"\x89"
        + data
        + b"tb."
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n", "not a readable pickle"),
        (b"hello, this is text", "not a readable pickle"),
        (b"\x80\x06N.", "protocol 6"),
        (b"S'a\\q'\n.", "not there"),
        (b"S'a\n.", "quotes"),
        (b"\x80\x05\x97.", "outside of the file"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x80\x04" + b")" + b"\x85" * 300_000 + b".", "100 levels"),
        (b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".", "100 levels"),
        (b"(" * 5000 + b".", "marks"),
        (b"]q\x00h\x00a.", "contains itself"),
        (b"\x80\x02h\x07.", "not there"),
        (b"\x80\x02}]K\x01s.", "dictionary key"),
        (b"\x80\x02K\x01K\x02.", "left over"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "digits"),
        (b"\x80\x02B\xff\xff\xff\xffabc.", "ends too early"),
        (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "ends too early"),
        (b"\x80\x04\x95\xff\xff\x00\x00\x00\x00\x00\x00N.", "ends too early"),
        (b"c__builtin__\nbytes\nK\xff\x85R.", "bytes"),
        (b"cnumpy\nndarray\n.", "numpy.ndarray"),
        (b"cnumpy\ndtype\nU\x03O,OK\x00K\x01\x87R.", "dtype"),
        (array_pickle(b"K\x02\x85", b"O8", b"U\x10" + b"A" * 16), "raw bytes"),
        (array_pickle(b"K\x02\x85", b"O8", b"]K\x01a"), "1 items"),
        (array_pickle(b"K\x05\x85", b"f8", b"U\x10" + b"A" * 16), "16 bytes"),
        (array_pickle(b"J\xff\xff\xff\xff\x85", b"f8", b"U\x10" + b"A" * 16), "unusable shape"),
        (array_pickle(b"J\xff\xff\xff\x7f\x85", b"U0", b"U\x00"), "empty strings"),
        (array_pickle(b"K\x01\x85", b"U1", b"U\x04\xff\xff\xff\xff"), "characters"),
        (array_pickle(b"K\x01\x85", b"b1", b"U\x01\x07"), "0 and 1"),
        (array_pickle(b"K\x01\x85", b"M8", b"U\x08" + b"A" * 8), "dtype"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R.", "never filled"),
    ],
)
def test_bad_streams_end_in_one_sentence(read, data, words):
    with pytest.raises(DataFormatError) as caught:
        read(data)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_deep_object_arrays_do_not_overflow_the_machine_stack(read):
    level = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85h\x00\x89]"
    head = b"\x80\x02cnumpy\ndtype\nU\x02O8K\x00K\x01\x87Rq\x000"
    depth = 20_000
    with pytest.raises(DataFormatError, match="marks"):
        read(head + level * depth + b"N" + b"atb" * depth + b".")
    inside_out = b"".join(
        [
            head,
            b"N",
            b"\x85q\x010" * 0,
            *[
                b"q\x010cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
                b"(K\x01K\x01\x85h\x00\x89]h\x01atb"
            ]
            * depth,
            b".",
        ]
    )
    with pytest.raises(DataFormatError, match="100 levels"):
        read(inside_out)


def test_keys_that_take_forever_to_hash_are_refused(read):
    doubling = b"\x80\x04K\x01" + b"2\x86" * 90
    with pytest.raises(DataFormatError, match="too many parts"):
        read(doubling + b"\x94}h\x00K\x01s.")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CorpusNotFoundError, match=r"nothing\.pkl"):
        read_pickle(tmp_path / "nothing.pkl")
    with pytest.raises(DataFormatError, match="not a file"):
        read_pickle(tmp_path)
