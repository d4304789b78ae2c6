"""Reading rows: three forms, and every fault with its line."""

import io
import pickle

import numpy as np
import pytest

from proxy.detection.rows import MAX_FAULTS, Form, read_table
from proxy.errors import ConfigError


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


OIP = b'{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":%s}],"outputs":[]}'


@pytest.mark.parametrize(
    ("form", "data", "rows", "names"),
    [
        (Form.CSV, b"1,2\n3,4\n", [[1, 2], [3, 4]], ()),
        (Form.CSV, b"\xef\xbb\xbfa, b\r\n1,2e3\r\n\r\n3,-4.5\r\n", [[1, 2000], [3, -4.5]], ("a", "b")),
        (Form.CSV, b'"width, cm"\n"1"\n', [[1]], ("width, cm",)),
        (Form.NPY, npy(np.array([[1, 2], [3, 4]], np.uint8)), [[1, 2], [3, 4]], ()),
        (Form.NPY, npy(np.arange(8, dtype=np.float16).reshape(2, 2, 2)), [[0, 1, 2, 3], [4, 5, 6, 7]], ()),
        (Form.JSON_LINES, b"[1, 2]\n\n[3,4.5]", [[1, 2], [3, 4.5]], ()),
        (Form.JSON_LINES, OIP % b"[1,2,3,4]", [[1, 2], [3, 4]], ()),
        (Form.JSON_LINES, OIP % b"[[1,2],[3,4]]" + b"\n[5,6]", [[1, 2], [3, 4], [5, 6]], ()),
        (
            Form.JSON_LINES,
            b'{"inputs":[{"name":"a","shape":[2,1],"datatype":"INT64","data":[1,2]},%s]}'
            % b'{"name":"b","shape":[2,1],"datatype":"FP64","data":[[0.5],[1.5]]}',
            [[1, 0.5], [2, 1.5]],
            (),
        ),
        (
            Form.JSON_LINES,
            b'{"inputs":[{"name":"a","shape":[2],"datatype":"FP32","data":[1,2]}]}',
            [[1, 2]],
            (),
        ),
    ],
)
def test_rows_are_read(form, data, rows, names) -> None:
    table = read_table(data, form, "f")
    np.testing.assert_array_equal(table.rows, rows)
    assert table.names == names


@pytest.mark.parametrize(
    ("form", "data", "messages"),
    [
        (Form.CSV, b"", ["f: no rows"]),
        (Form.CSV, b"a,b\n", ["f: no rows"]),
        (Form.CSV, b"a,b\n1,2\n3,x\n4\n", ["f:3:1: not a number: 'x'", "f:4:1: 1 numbers and not 2"]),
        (Form.CSV, b"a,b\n1,2,3\n", ["f:2:1: 3 numbers and not 2"]),
        (Form.CSV, b"a,b\nc,d\n1,2\n", ["f:2:1: not a number: 'c'"]),
        (Form.CSV, b"1;2\n3;4\n", ["f:2:1: not a number: '3;4'"]),
        (Form.CSV, b'1,"2\n', ["f:1:1: not CSV"]),
        (Form.CSV, b"\xff\xfe1,2", ["f: not UTF-8 text"]),
        (Form.NPY, b"", ["f: not an NPY file"]),
        (Form.NPY, b"1,2\n", ["f: not an NPY file"]),
        (Form.NPY, npy(np.eye(3))[:-1], ["f: not an NPY file"]),
        (Form.NPY, npy(np.eye(3))[:20], ["f: not an NPY file"]),
        (Form.NPY, pickle.dumps(np.eye(3)), ["f: not an NPY file"]),
        (Form.NPY, npy(np.array([[1, "a"]], dtype="U3")), ["f: not a table of numbers"]),
        (Form.NPY, npy(np.eye(3, dtype=complex)), ["f: not a table of numbers"]),
        (Form.NPY, npy(np.arange(3)), ["f: not a table of numbers"]),
        (Form.JSON_LINES, b"\n\n", ["f: no rows"]),
        (Form.JSON_LINES, b"[1,2]\n[1]\n{}\n", ["f:2:1: 1 numbers and not 2", "f:3:1: neither a list"]),
        (Form.JSON_LINES, b'[1,"2"]', ["f:1:1: neither a list"]),
        (Form.JSON_LINES, b"[1,NaN]", ["f:1:1: neither a list"]),
        (Form.JSON_LINES, b'{"inputs":[]}', ["f:1:1: neither a list"]),
        (Form.JSON_LINES, OIP % b"[1,2,3]", ["f:1:1: neither a list"]),
        (Form.JSON_LINES, b"[" * 100_000, ["f:1:1: neither a list"]),
        (
            Form.JSON_LINES,
            b'{"inputs":[{"name":"a","shape":[1,1],"datatype":"BYTES","data":[1]}]}',
            ["f:1:1: neither a list"],
        ),
        (
            Form.JSON_LINES,
            b'{"inputs":[{"name":"a","shape":[-1,-1],"datatype":"FP32","data":[1]}]}',
            ["f:1:1: neither a list"],
        ),
    ],
)
def test_faults_have_their_line_and_what_mends_them(form, data, messages) -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(data, form, "f")
    findings = caught.value.findings
    assert len(findings) == len(messages)
    for finding, message in zip(findings, messages, strict=True):
        assert str(finding).startswith(message)
        assert finding.hint


def test_a_pickle_in_an_array_is_not_run() -> None:
    with pytest.raises(ConfigError, match="not an NPY file"):
        read_table(npy(np.array([[print]], dtype=object)), Form.NPY, "f")


def test_not_more_faults_than_one_can_read() -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(b"1,2\n" + b"x,y\n" * 1000, Form.CSV, "f")
    assert len(caught.value.findings) == MAX_FAULTS
