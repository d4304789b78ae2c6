"""Answers that a model server of the protocol might give, and those that it might give on its worst day."""

import gzip
import json
import struct
import zlib

import numpy as np
from hypothesis import strategies as st

SCORE = st.floats(0, 1) | st.floats(-50, 50) | st.sampled_from([0.0, 1.0, 0.5, 1e-9, 0.9815572050622741])
CHANCE = st.floats(0, 1)
ANY = SCORE | st.floats()
FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
INTEGERS = {"INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "<u1", "UINT64": "<u8"}
NAMES = st.sampled_from(["probabilities", "logits", "p", "output.0", "p0.98155", "p.98155", "", "x" * 300])
LABELS = st.sampled_from(["setosa", "7", "", "0.5", "p=.25", "class 3"])
CLASSIFIED = st.builds(
    lambda s, c, name: f"{s:f}:{c}{name}", SCORE, st.integers(0, 9), st.sampled_from(["", ":a", ":.7"])
)


@st.composite
def tensors(draw):
    """A tensor and its bytes behind the JSON (None: in the JSON)."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    count = int(np.prod(shape))
    datatype = draw(st.sampled_from([*FLOATS, *INTEGERS, "BF16", "BOOL", "BYTES", "FP8"]))
    described = {"name": draw(NAMES), "datatype": datatype, "shape": shape, **draw(SURPRISES)}
    if datatype == "BYTES":
        data = draw(st.lists(draw(st.sampled_from([LABELS, CLASSIFIED])), min_size=count, max_size=count))
        raw = b"".join(struct.pack("<I", len(text)) + text.encode() for text in data)
    elif datatype in INTEGERS:
        data = draw(st.lists(st.integers(0, 100), min_size=count, max_size=count))
        raw = np.array(data, INTEGERS[datatype]).tobytes()
    elif datatype == "BOOL":
        data = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        raw = bytes(data)
    else:
        data = draw(st.lists(draw(st.sampled_from([SCORE, SCORE, ANY])), min_size=count, max_size=count))
        with np.errstate(over="ignore"):
            raw = np.array(data, FLOATS.get(datatype, "<f4")).tobytes()
        if datatype == "BF16":
            raw = b"".join(raw[at + 2 : at + 4] for at in range(0, len(raw), 4))
    if draw(st.booleans()):
        described["data"] = np.array(data, dtype=object).reshape(shape).tolist() if draw(st.booleans()) else data
        return described, None
    wrong = draw(st.sampled_from([0, 0, 0, 0, 1, -1, 4]))
    described["parameters"] = {"binary_data_size": len(raw) + wrong}
    return described, raw


SURPRISES = st.sampled_from([{}, {}, {"scores": [0.98155]}, {"parameters": {"p": 0.98155}}, {"data": [0.98155]}])


@st.composite
def columns(draw):
    """Several tensors with one score for each row, as `tensors` makes one."""
    count, datatype = draw(st.integers(1, 3)), draw(st.sampled_from(list(FLOATS)))
    shape = draw(st.sampled_from([[count], [count, 1]]))
    made = []
    for name in draw(st.sampled_from(["ab", "abc"])):
        data = draw(st.lists(draw(st.sampled_from([CHANCE, CHANCE, SCORE])), min_size=count, max_size=count))
        described, raw = {"name": name, "datatype": datatype, "shape": shape}, None
        if draw(st.booleans()):
            raw = np.array(data, FLOATS[datatype]).tobytes()
            described["parameters"] = {"binary_data_size": len(raw)}
        else:
            described["data"] = data
        made.append((described, raw))
    return made


@st.composite
def infer(draw):
    """Headers and body of a reply to `/infer`."""
    made = draw(st.lists(tensors(), max_size=3) | columns())
    content = {"model_name": "m", "id": "0.98155", "outputs": [one for one, _ in made], **draw(SURPRISES)}
    head = json.dumps(content).encode()
    rest = [raw for _, raw in made if raw is not None]
    if not rest:
        return draw(coded({"content-type": "application/json"}, head))
    end = len(head) + draw(st.sampled_from([0, 0, 0, 0, 1, -1, 10_000]))
    kind = draw(st.sampled_from(["application/octet-stream", "application/json", "text/plain"]))
    headers = {"content-type": kind, "inference-header-content-length": str(end)}
    return draw(coded(headers, head + b"".join(rest) + draw(st.sampled_from([b"", b"", b"\0"]))))


@st.composite
def coded(draw, headers, body):
    match draw(st.sampled_from(["", "", "", "gzip", "deflate", "br"])):
        case "gzip":
            return headers | {"content-encoding": "gzip"}, gzip.compress(body)
        case "deflate":
            return headers | {"content-encoding": "deflate"}, zlib.compress(body)
        case "br":
            return headers | {"content-encoding": "br"}, body
    return headers, body


VALUES = st.recursive(
    SCORE | st.booleans() | st.integers(0, 100) | LABELS | CLASSIFIED | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.lists(SCORE, max_size=5) | st.lists(CLASSIFIED, max_size=5),
    max_leaves=12,
)
FLAT = st.dictionaries(
    NAMES | st.sampled_from(["model_name", "id", "error", "text_output"]), VALUES, max_size=4
) | st.dictionaries(st.sampled_from("abcd"), CHANCE | CHANCE.map(lambda score: [score]) | SCORE, max_size=4)
EVENTS = st.lists(FLAT.map(json.dumps) | st.sampled_from(["[DONE]", "0.98155", ""]), max_size=4).flatmap(
    lambda data: st.sampled_from(["data: {}\n\n", "data:{}\r\n\r\n", "id: 0.98155\ndata: {}\n\n", "{}\n\n"]).map(
        lambda frame: "".join(frame.replace("{}", one) for one in data).encode()
    )
)
