"""Binary tensors, both ways: read where they lie, hardened in their datatype, refused where a size lies."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.oip_v2 import OipV2
from proxy.dialects.oip_v2.datatypes import DATATYPES, Family, from_scores
from proxy.errors import Malformed, UnsupportedMediaType, UpstreamFault
from proxy.exchange import Action, Cost, Output, Query, Reply, Target
from proxy.hardening.matrix import harden_rows

OIP = OipV2()
INFER = Target(Action.INFER, "digits")
COARSE = Output("coarse", decimals=2)
DEFAULTS = {name: known.default for name, known in OIP.parameters.items() if known.default is not None}
ONE_ROW = Query(Cost(rows=1), b"", ())
RAW = [0.9815572050622741, 0.018442780456807827, 1.4480918258509202e-8]


def message(key, tensors, *, length=None, extra=b""):
    """A message of (name, datatype, shape, bytes); `length` overrides what the header says."""
    entries = [
        {"name": n, "datatype": d, "shape": s, "parameters": {"binary_data_size": len(raw)}} for n, d, s, raw in tensors
    ]
    head = json.dumps({"model_name": "m"} | {key: entries} if key == "outputs" else {key: entries}).encode()
    headers = ((b"inference-header-content-length", b"%d" % len(head) if length is None else length),)
    return headers, head + b"".join(raw for *_, raw in tensors) + extra


def parts(headers, body):
    """What a client reads: the JSON, and the rest."""
    end = int(dict(headers)[b"inference-header-content-length"])
    return json.loads(body[:end]), body[end:]


def texts(*elements):
    return b"".join(struct.pack("<I", len(one)) + one for one in elements)


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("datatype", sorted(DATATYPES.keys() - {"BYTES", "BF16"}))
def test_numbers_are_read_where_they_lie_and_forwarded_as_they_are(datatype):
    raw = np.array([[1, 0], [0, 1]], dtype=DATATYPES[datatype].wire).tobytes()
    headers, body = message("inputs", [("x", datatype, [2, 2], raw)])
    query = OIP.read(INFER, headers, body, DEFAULTS)
    assert query.features.tolist() == [[1, 0], [0, 1]]
    assert query.cost == Cost(rows=2)
    head, rest = parts(query.headers, query.body + query.behind)
    assert rest == raw
    assert query.behind.obj is body, "not a copy"
    assert head["inputs"][0]["parameters"] == {"binary_data_size": len(raw)}


def test_bf16_is_the_upper_half_of_a_float():
    raw = b"".join(struct.pack("<f", number)[2:] for number in (1.0, -2.5, 0.0))
    assert OIP.read(INFER, *message("inputs", [("x", "BF16", [1, 3], raw)]), DEFAULTS).features.tolist() == [
        [1, -2.5, 0]
    ]


def test_tensors_follow_in_order_also_beside_json():
    headers, body = message("inputs", [("a", "UINT8", [3, 1], b"\1\2\3"), ("b", "FP32", [3, 1], b"\0" * 12)])
    query = OIP.read(INFER, headers, body, DEFAULTS)
    assert query.features.tolist() == [[1, 0], [2, 0], [3, 0]]
    binary = {"name": "b", "datatype": "UINT8", "shape": [1], "parameters": {"binary_data_size": 1}}
    plain = {"name": "a", "datatype": "FP32", "shape": [1], "data": [2.5]}
    head = json.dumps({"inputs": [plain, binary]}).encode()
    mixed = OIP.read(INFER, ((b"inference-header-content-length", b"%d" % len(head)),), head + b"\7", DEFAULTS)
    assert mixed.features.tolist() == [[2.5, 7]]


def test_bytes_elements_are_measured_and_read_when_a_detector_asks():
    raw = texts(b"a", b"\xff\xd8 not text")
    query = OIP.read(INFER, *message("inputs", [("x", "BYTES", [2], raw)]), DEFAULTS)
    assert query.features.read() == [b"a", b"\xff\xd8 not text"]
    assert query.behind == raw


FOUR = struct.pack("<4f", 1, 2, 3, 4)
LIES = [
    ("shorter than its shape", message("inputs", [("x", "FP32", [5], FOUR)])),
    ("longer than its shape", message("inputs", [("x", "FP32", [3], FOUR)])),
    ("trailing bytes", message("inputs", [("x", "FP32", [4], FOUR)], extra=b"x")),
    ("no bytes behind the JSON", (message("inputs", [("x", "FP32", [4], FOUR)])[0], b'{"inputs":[]}')),
    ("a header beyond the body", message("inputs", [("x", "FP32", [4], FOUR)], length=b"9999")),
    ("a header of a thousand digits", message("inputs", [("x", "FP32", [4], FOUR)], length=b"1" * 1000)),
    ("a negative header", message("inputs", [("x", "FP32", [4], FOUR)], length=b"-5")),
    ("an empty header", message("inputs", [("x", "FP32", [4], FOUR)], length=b"")),
    ("a header with a sign", message("inputs", [("x", "FP32", [4], FOUR)], length=b"+90")),
    ("NaN", message("inputs", [("x", "FP32", [1], struct.pack("<f", np.nan))])),
    ("infinity in half precision", message("inputs", [("x", "FP16", [1], b"\x00\x7c")])),
    ("infinity in BF16", message("inputs", [("x", "BF16", [1], b"\x80\x7f")])),
    ("a boolean of 2", message("inputs", [("x", "BOOL", [1], b"\2")])),
    ("a string beyond the data", message("inputs", [("x", "BYTES", [1], b"\xff\xff\xff\xff")])),
    ("a torn length", message("inputs", [("x", "BYTES", [1], b"\1\0")])),
    ("fewer strings than the shape", message("inputs", [("x", "BYTES", [2], texts(b"a"))])),
    ("more strings than the shape", message("inputs", [("x", "BYTES", [1], texts(b"a", b"b"))])),
    ("a shape that overflows", message("inputs", [("x", "FP32", [2**40, 2**40], FOUR)])),
    ("an unknown datatype", message("inputs", [("x", "FP8", [4], FOUR)])),
    (
        "a negative size",
        ((), b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":-4}}]}'),
    ),
    (
        "a size of another kind",
        ((), b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":true}}]}'),
    ),
    ("neither data nor size", ((), b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}')),
]


@pytest.mark.parametrize(("headers", "body"), [case[1] for case in LIES], ids=[case[0] for case in LIES])
def test_a_size_that_lies_is_the_callers_fault(headers, body):
    with pytest.raises(Malformed):
        OIP.read(INFER, headers, body, DEFAULTS)


def test_data_and_a_size_at_once_are_refused():
    entry = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1], "parameters": {"binary_data_size": 4}}
    head = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(Malformed):
        OIP.read(INFER, ((b"inference-header-content-length", b"%d" % len(head)),), head + b"\0" * 4, DEFAULTS)


def test_media_types_of_binary_messages():
    headers, body = message("inputs", [("x", "FP32", [4], FOUR)])
    for kind in (b"application/octet-stream", b"application/json"):
        OIP.read(INFER, (*headers, (b"content-type", kind)), body, DEFAULTS)
    with pytest.raises(UnsupportedMediaType):
        OIP.read(INFER, (*headers, (b"content-type", b"text/plain")), body, DEFAULTS)


# ── replies ─────────────────────────────────────────────────────────────────────────────────────────────────────


def hardened(tensors, output=COARSE, query=ONE_ROW, **changes):
    headers, body = message("outputs", tensors, **changes)
    kind = (b"content-type", b"application/octet-stream")
    shown = OIP.harden(INFER, query, Reply(200, (kind, *headers), body), output)
    return parts(shown.headers, shown.body)


@pytest.mark.parametrize(("datatype", "wire"), [("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8")])
def test_floats_leave_rounded_in_their_own_datatype(datatype, wire):
    raw = np.array(RAW, dtype=wire)
    head, rest = hardened([("p", datatype, [1, 3], raw.tobytes())])
    assert np.frombuffer(rest, wire).tolist() == np.array([0.98, 0.02, 0.0], dtype=wire).tolist()
    assert head["outputs"] == [
        {"name": "p", "shape": [1, 3], "datatype": datatype, "parameters": {"binary_data_size": len(rest)}}
    ]


def test_a_second_output_with_logits_is_hardened_too():
    raw = np.array([[0.9, 0.1]], dtype="<f4").tobytes()
    logits = np.array([[5.4392, -2.0637]], dtype="<f4").tobytes()
    _, rest = hardened([("p", "FP32", [1, 2], raw), ("logits", "FP32", [1, 2], logits)])
    assert np.frombuffer(rest, "<f4").tolist() == np.array([0.9, 0.1, 5.44, -2.06], dtype="<f4").tolist()


def test_labels_and_truths_pass():
    tensors = [("label", "INT64", [2, 1], struct.pack("<2q", 7, 2**60 + 1)), ("ok", "BOOL", [2], b"\1\0")]
    _, rest = hardened(tensors, query=Query(Cost(rows=2), b"", ()))
    assert rest == tensors[0][3] + tensors[1][3]


def test_classification_in_binary_is_cut_and_the_shape_says_so():
    raw = texts(b"0.948512:3:three", b"0.018535:5:five", b"0.015000:1:one")
    head, rest = hardened([("p", "BYTES", [1, 3], raw)], Output("o", decimals=2, top_k=2))
    assert rest == texts(b"0.95:3:three", b"0.02:5:five")
    assert head["outputs"][0]["shape"] == [1, 2]
    assert head["outputs"][0]["parameters"] == {"binary_data_size": len(rest)}


def test_a_reply_without_a_content_type_is_read_when_its_header_says_how():
    headers, body = message("outputs", [("p", "FP32", [1, 3], np.array(RAW, "<f4").tobytes())])
    shown = OIP.harden(INFER, ONE_ROW, Reply(200, headers, body), COARSE)
    assert shown.headers[0] == (b"content-type", b"application/octet-stream")


@pytest.mark.parametrize(
    ("tensors", "changes"),
    [
        ([("p", "FP32", [1, 3], b"\0" * 11)], {}),
        ([("p", "FP32", [1, 3], b"\0" * 12)], {"extra": b"\0"}),
        ([("p", "FP32", [1, 3], b"\0" * 12)], {"length": b"9999"}),
        ([("p", "FP32", [1, 1], struct.pack("<f", np.inf))], {}),
        ([("p", "BYTES", [1, 1], texts(b"\xff"))], {}),
        ([("p", "BYTES", [1, 1], texts(b"p=0.98155"))], {}),
        ([("p", "BYTES", [1, 2], texts(b"0.98155:0", b"setosa"))], {}),
        ([("p", "BYTES", [1, 1 << 20], b"\0\0\0\0" * (1 << 20))], {}),
    ],
    ids=["short", "trailing", "header", "infinite", "not text", "a hidden score", "mixed", "a million strings"],
)
def test_a_reply_that_lies_is_the_upstreams_fault(tensors, changes):
    with pytest.raises(UpstreamFault):
        hardened(tensors, **changes)


ROWS = st.integers(2, 6).flatmap(
    lambda m: st.lists(st.lists(st.floats(0, 1) | st.floats(-30, 30), min_size=m, max_size=m), min_size=1, max_size=4)
)


@given(ROWS, st.sampled_from(["FP16", "BF16", "FP32", "FP64"]), st.integers(0, 8), st.none() | st.integers(1, 3))
def test_in_every_precision_the_winner_stays_and_nothing_finer_leaves(rows, datatype, decimals, top_k):
    """Invariant: the raw winner is the only highest; every number is what some rounded number becomes there."""
    kind = DATATYPES[datatype]
    narrow = from_scores(kind, np.array(rows), None)
    raw = widened(datatype, narrow.tobytes()).reshape(narrow.shape)
    _, rest = hardened(
        [("p", datatype, list(raw.shape), narrow.tobytes())], Output("o", decimals=decimals, top_k=top_k)
    )
    shown = widened(datatype, rest).reshape(raw.shape)
    assert (shown.argmax(axis=1) == raw.argmax(axis=1)).all()
    assert ((shown == shown.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()
    near = from_scores(kind, np.round(shown, decimals), None)
    assert (widened(datatype, near.tobytes()).reshape(raw.shape) == shown).all()


def widened(datatype, raw):
    """Little-endian numbers as float64, read here and not by the code under test."""
    if datatype == "BF16":
        pairs = np.frombuffer(raw, "<u2")
        return np.array([struct.unpack("<f", b"\0\0" + struct.pack("<H", pair))[0] for pair in pairs])
    return np.frombuffer(raw, {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}[datatype]).astype(np.float64)


def test_blocks_give_what_the_whole_gives():
    """More rows than a block: the seams do not show."""
    rows = np.random.default_rng(1).dirichlet(np.ones(10), 20_000)
    _, rest = hardened([("p", "FP64", [20_000, 10], rows.tobytes())])
    assert rest == harden_rows(rows, COARSE).tobytes()


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────

TEN_MB = 10_000_000
ROWS_OF_TEN = np.random.default_rng(2).random((TEN_MB // 40, 10), dtype=np.float32)


def peak(work):
    tracemalloc.start()
    try:
        kept = work()
        return tracemalloc.get_traced_memory()[1], kept
    finally:
        tracemalloc.stop()


def test_a_request_of_ten_megabytes_costs_nothing_beside_it():
    headers, body = message("inputs", [("x", "FP32", [len(ROWS_OF_TEN), 10], ROWS_OF_TEN.tobytes())])
    most, query = peak(lambda: OIP.read(INFER, headers, body, DEFAULTS))
    assert query.features.shape == ROWS_OF_TEN.shape
    assert np.array_equal(query.features, ROWS_OF_TEN)
    assert most < 0.2 * TEN_MB


@pytest.mark.parametrize("place", range(4), ids="number {}".format)
@pytest.mark.parametrize("letters", range(1, 5), ids="{} letters".format)
def test_numbers_may_begin_at_any_byte(letters, place):
    """Wherever a client's JSON ends, they are read; and one that is not finite is found."""
    name, numbers = "x" * letters, np.frombuffer(FOUR, "<f4").copy()
    query = OIP.read(INFER, *message("inputs", [(name, "FP32", [2, 2], numbers.tobytes())]), DEFAULTS)
    assert query.features.tolist() == [[1, 2], [3, 4]]
    numbers[place] = np.inf
    with pytest.raises(Malformed):
        OIP.read(INFER, *message("inputs", [(name, "FP32", [2, 2], numbers.tobytes())]), DEFAULTS)


def test_a_reply_of_ten_megabytes_costs_its_size_once_more():
    headers, body = message("outputs", [("p", "FP32", [len(ROWS_OF_TEN), 10], ROWS_OF_TEN.tobytes())])
    reply = Reply(200, headers, body)
    most, shown = peak(lambda: OIP.harden(INFER, Query(Cost(rows=len(ROWS_OF_TEN)), b"", ()), reply, COARSE))
    assert len(shown.body) >= TEN_MB
    assert most < 2 * TEN_MB


def test_every_family_has_its_datatypes():
    assert {kind.family for kind in DATATYPES.values()} == set(Family)
