"""What the dialects hand to a detector of encoded images: each row's one file, and nothing beside it."""

import base64
import json

import pytest

from proxy.dialects.kserve_v1 import KserveV1
from proxy.dialects.oip_v2 import OipV2
from proxy.dialects.torchserve import TorchServe
from proxy.errors import Malformed
from proxy.exchange import Action, Images, Target, Texts

JSON = ((b"content-type", b"application/json"),)
FILE, OTHER = b"\x89PNG and so on", b"\xff\xd8 and so on"
B64, B64_OTHER = (base64.b64encode(file).decode() for file in (FILE, OTHER))


def kserve(body: dict[str, object], form: str = "predict") -> list[bytes]:
    query = KserveV1().read(Target(Action.INFER, "m", form=form), JSON, json.dumps(body).encode(), {})
    assert isinstance(query.features, Images)
    assert query.features.size > 0
    return list(query.features.read())


def torch(body: bytes, kind: bytes) -> list[bytes]:
    query = TorchServe().read(Target(Action.INFER, "m"), ((b"content-type", kind),), body, {})
    assert isinstance(query.features, Images)
    return list(query.features.read())


def tensors(*inputs: tuple[list[int], list[str]]) -> list[bytes]:
    every = [
        {"name": f"x{at}", "shape": shape, "datatype": "BYTES", "data": data} for at, (shape, data) in enumerate(inputs)
    ]
    query = OipV2().read(Target(Action.INFER, "m"), JSON, json.dumps({"inputs": every}).encode(), {})
    assert isinstance(query.features, Texts)
    assert query.features.images is not None
    return list(query.features.images.read())


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"b64": B64}, {"b64": B64_OTHER}]},
        {"instances": [{"image_bytes": {"b64": B64}}, {"image_bytes": {"b64": B64_OTHER}}]},
        {"instances": [[{"b64": B64}], [{"b64": B64_OTHER}]]},
        {"instances": [{"data": B64}, {"body": B64_OTHER}]},
        {"inputs": {"image_bytes": [{"b64": B64}, {"b64": B64_OTHER}]}},
        {"inputs": [{"b64": B64}, {"b64": B64_OTHER}]},
    ],
    ids=["plain", "named", "in-lists", "torchserve", "columns", "one-column"],
)
def test_rows_of_json(body) -> None:
    assert kserve(body) == [FILE, OTHER]
    assert torch(json.dumps(body).encode(), b"application/json") == [FILE, OTHER] if "instances" in body else True


@pytest.mark.parametrize(
    "row",
    [
        "aGVsbG8=",
        {"b64": B64, "key": 1},
        {"image": {"b64": B64, "key": 1}},
        {"caption": "aGVsbG8="},
        {"b64": 1, "c": "x"},
        {"b64": [B64, B64]},
        {"b64": None},
        {"b64": "not base64"},
        {"b64": B64[:-1] + "\n"},
        {"a": {"b": {"c": {"d": {"b64": B64}}}}},
        {},
        [],
    ],
    ids=str,
)
def test_a_row_that_is_more_or_less_than_one_image_is_refused_when_read(row) -> None:
    with pytest.raises(Malformed):
        kserve({"instances": [{"b64": B64}, row]})


def test_examples_with_a_common_context_are_not_judged_without_it() -> None:
    """TensorFlow reads an input from the context where an example has none: the image beside it would be a decoy."""
    for example in ({"decoy": {"b64": B64}}, {"decoy": [1.5, 2.5]}):
        target = Target(Action.INFER, "m", form="examples")
        body: dict[str, object] = {"examples": [example]}
        assert KserveV1().read(target, JSON, json.dumps(body).encode(), {}).features is not None
        body["context"] = {"image": {"b64": B64_OTHER}}
        assert KserveV1().read(target, JSON, json.dumps(body).encode(), {}).features is None


def test_files_of_torchserve() -> None:
    assert torch(FILE, b"image/png") == [FILE]
    assert torch(OTHER, b"application/octet-stream") == [OTHER]
    form = b'--a\r\ncontent-disposition: form-data; name="data"\r\ncontent-type: image/png\r\n\r\n%b\r\n--a--'
    assert torch(form % FILE, b"multipart/form-data; boundary=a") == [FILE]
    assert torch(json.dumps({"data": B64}).encode(), b"application/json") == [FILE]


def test_elements_of_tensors() -> None:
    assert tensors(([2, 1], [B64, B64_OTHER])) == [FILE, OTHER]
    assert tensors(([1], [B64])) == [FILE]
    for inputs in ([([1, 2], [B64, B64])], [([1], [B64]), ([1], [B64])], [([1], ["no base64!"])]):
        with pytest.raises(Malformed):
            tensors(*inputs)


def test_files_behind_the_json() -> None:
    raw = b"".join(len(file).to_bytes(4, "little") + file for file in (FILE, B64_OTHER.encode()))
    tensor = {"name": "x", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = (
        (b"content-type", b"application/octet-stream"),
        (b"inference-header-content-length", b"%d" % len(head)),
    )
    query = OipV2().read(Target(Action.INFER, "m"), headers, head + raw, {})
    assert isinstance(query.features, Texts)
    assert query.features.images is not None
    assert query.features.images.read() == [FILE, OTHER]
