"""Scores of one row that stand in several outputs, a class in each: `setosa` [[0.9]] and `virginica` [[0.1]]. Pure.

Under a profile that keeps classes back they are one row. Where they cannot be (one lies beyond [0, 1], or their rows
differ in number, or one is a classification string), nobody can say which scores belong together, and the answer is
refused. Rounding alone needs none of this. Not guaranteed: that scores scaled to whole numbers, one in each output, are
not taken for labels.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from proxy.dialects.lone import APART, alone
from proxy.dialects.loose_json import one_row
from proxy.dialects.oip_v2 import tensors
from proxy.dialects.oip_v2.datatypes import (
    FLOATS,
    TEXTS,
    Datatype,
    Unreadable,
    datatype,
    from_scores,
    numbers,
    strings,
)
from proxy.exchange import Output
from proxy.hardening.matrix import harden_rows
from proxy.hardening.text import holds_class

if TYPE_CHECKING:
    from proxy.dialects.oip_v2.replies import ReplyTensor

BLOCK = 1 << 16  # numbers that are hardened at once: what is held beside the columns


def harden_columns(
    outputs: Sequence["ReplyTensor"], pieces: list[memoryview | None], rows: int, output: Output
) -> None:
    """Harden outputs with one score for each row as the columns of a table, in place. Raise Unreadable."""
    if output.top_k is None and not output.label_only:
        return
    alone_in = [at for at, tensor in enumerate(outputs) if _one_each(tensor, rows)]
    if len(alone_in) < 2:
        return
    places = [at for at in alone_in if datatype(outputs[at].datatype).family is FLOATS]
    classes = sum(_holds_classes(outputs[at], pieces[at]) for at in alone_in if at not in places)
    if classes and classes + len(places) > 1:
        raise Unreadable("several outputs of one classification a row" + APART)
    if len(places) < 2:
        return
    # JSON has the digits of an FP64, whatever the datatype.
    kinds = [datatype("FP64" if pieces[at] is None else outputs[at].datatype) for at in places]
    given = [_column(outputs[at], kind, pieces[at]) for at, kind in zip(places, kinds, strict=True)]
    if len(set(map(len, given))) > 1:
        raise Unreadable("outputs of one score for each of differently many rows" + APART)
    shown = [np.empty(len(column), kind.wire) for kind, column in zip(kinds, given, strict=True)]
    step = max(1, BLOCK // len(given))
    for at in range(0, len(given[0]), step):
        table = np.column_stack([column[at : at + step].astype(np.float64) for column in given])
        _check(table)
        table = harden_rows(table, output)
        for number, (kind, column) in enumerate(zip(kinds, shown, strict=True)):
            column[at : at + step] = from_scores(kind, table[:, number : number + 1], None).ravel()
    for at, column in zip(places, shown, strict=True):
        if pieces[at] is None:
            outputs[at].data = column.tolist()
        else:
            pieces[at] = column.view(np.uint8).data


def harden_values(answer: Mapping[str, Any], output: Output) -> Mapping[str, Any]:
    """Return a flat answer whose lone numbers are hardened as one row. Raise Unreadable or ValueError."""
    if output.top_k is None and not output.label_only:
        return answer
    shown = one_row(answer, output)
    if shown:
        _check(np.array([[alone(answer[name]) for name in shown]], dtype=np.float64))
    return {**answer, **shown}


def _one_each(tensor: "ReplyTensor", rows: int) -> bool:
    kind, shape = datatype(tensor.datatype), tensor.shape
    return kind.family in {FLOATS, TEXTS} and (shape[-1:] == [1] or shape == [rows])


def _holds_classes(tensor: "ReplyTensor", raw: memoryview | None) -> bool:
    kind = datatype(tensor.datatype)
    count = tensors.elements(tensor.shape, kind)
    if raw is not None:
        return any(holds_class(text.decode()) for text in strings(raw, count))
    assert not isinstance(tensor.data, msgspec.UnsetType)  # noqa: S101 - a tensor has either
    return any(map(holds_class, tensors.flat(tensor.data, kind, count)))


def _column(tensor: "ReplyTensor", kind: Datatype, raw: memoryview | None) -> NDArray[Any]:
    count = tensors.elements(tensor.shape, kind)
    if raw is not None:
        return numbers(kind, tensors.checked(raw, kind, count))
    assert not isinstance(tensor.data, msgspec.UnsetType)  # noqa: S101 - a tensor has either
    return np.array(tensors.flat(tensor.data, kind, count), dtype=np.float64)


def _check(table: NDArray[np.float64]) -> None:
    if not ((table >= 0) & (table <= 1)).all():  # neither is true of NaN
        raise Unreadable("several outputs of one number a row, not all within [0, 1]" + APART)
