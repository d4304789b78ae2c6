"""Output hardening: the winner stays, the shape stays, no more is said than the profile allows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange import Output
from proxy.hardening.scores import harden_row
from proxy.hardening.text import harden_text

PROFILES = [
    Output("d0", decimals=0),
    Output("d1", decimals=1),
    Output("d2", decimals=2),
    Output("d2k1", decimals=2, top_k=1),
    Output("d3k3", decimals=3, top_k=3),
    Output("k1", top_k=1),
    Output("k2", top_k=2),
    Output("label", label_only=True),
]

CASES = [
    # name, raw, profile, expected
    ("plain rounding", [0.9815572, 0.0184427, 0.0], Output("o", decimals=2), [0.98, 0.02, 0.0]),
    ("rounding made a tie: the winner goes up", [0.496, 0.504], Output("o", decimals=2), [0.5, 0.51]),
    ("rounding at zero decimals keeps the winner", [0.3, 0.4, 0.3], Output("o", decimals=0), [0.0, 1.0, 0.0]),
    ("at the limit of 1 the others go down", [0.999, 0.998], Output("o", decimals=2), [1.0, 0.99]),
    ("top 1 keeps one score", [0.2, 0.5, 0.3], Output("o", top_k=1), [0.0, 0.5, 0.0]),
    ("top k wider than the row changes nothing", [0.2, 0.8], Output("o", top_k=5), [0.2, 0.8]),
    ("label only is one-hot", [0.2, 0.5, 0.3], Output("o", label_only=True), [0.0, 1.0, 0.0]),
    (
        "logits: what is suppressed never beats what is kept",
        [-3.0, -1.0, -5.0],
        Output("o", top_k=2),
        [-3.0, -1.0, -3.0],
    ),
    ("logits, top 1: the winner stays above the fill", [-3.0, -1.0], Output("o", decimals=1, top_k=1), [-1.0, -0.9]),
    ("no negative zero", [-0.001, 0.9], Output("o", decimals=1), [0.0, 0.9]),
    ("a single score is rounded", [0.7312], Output("o", decimals=2), [0.73]),
    ("a single score under label only is a whole number", [0.7312], Output("o", label_only=True), [1.0]),
    ("no profile, no change", [0.123456, 0.1], Output("o"), [0.123456, 0.1]),
]


@pytest.mark.parametrize(("name", "raw", "output", "expected"), CASES, ids=[case[0] for case in CASES])
def test_cases(name, raw, output, expected):
    assert harden_row(raw, output) == expected
    if "negative zero" in name:
        assert math.copysign(1.0, harden_row(raw, output)[0]) == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        harden_row([0.5, bad], Output("o", decimals=2))


scores = st.floats(-50, 50, allow_nan=False).map(lambda x: round(x, 6))
rows = st.lists(scores, min_size=2, max_size=40) | st.lists(st.floats(0, 1), min_size=2, max_size=40)


@given(rows, st.sampled_from(PROFILES))
def test_the_winner_is_the_only_highest_and_nothing_more_precise_leaves(row, output):
    """Holds for any row: argmax unchanged, no more decimals, no more classes than k, same length, same again."""
    shown = harden_row(row, output)
    winner = int(np.argmax(row))
    assert len(shown) == len(row)
    assert int(np.argmax(shown)) == winner
    assert shown == harden_row(row, output)
    if output.label_only:
        assert sorted(shown) == [0.0] * (len(row) - 1) + [1.0]
        return
    if output.decimals is not None:
        assert all(round(score, output.decimals) == score for score in shown)
        assert shown.count(max(shown)) == 1
    if output.top_k is not None:
        fill = min(shown)
        assert sum(score != fill for score in shown) <= output.top_k


def test_rounding_never_changes_a_prediction_over_real_rows():
    """20,000 softmax rows of close calls: bare rounding changes 1-2 % of them, ours none."""
    logits = np.random.default_rng(7).normal(size=(20_000, 10)) * 0.5
    raw = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    bare = (np.round(raw, 1).argmax(axis=1) != raw.argmax(axis=1)).sum()
    ours = sum(int(np.argmax(harden_row(list(row), Output("o", decimals=1)))) != row.argmax() for row in raw)
    assert bare > 200
    assert ours == 0


CLASSIFIED = ["0.981557:0:setosa", "0.018443:1:versicolor", "0.000001:2:virginica"]


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (Output("o", decimals=2), ["0.98:0:setosa", "0.02:1:versicolor", "0.00:2:virginica"]),
        (Output("o", decimals=2, top_k=2), ["0.98:0:setosa", "0.02:1:versicolor"]),
        (Output("o", top_k=1), ["0.981557:0:setosa"]),
        (Output("o", label_only=True), ["1:0:setosa"]),
        (Output("o"), CLASSIFIED),
    ],
)
def test_classification_strings_are_scores(output, shown):
    assert harden_text(CLASSIFIED, output) == shown


def test_the_order_of_classes_tells_no_more_than_their_scores():
    """Two classes that are equal after rounding stand in the order of their numbers, whichever was ahead."""
    row = ["0.981:9:z", "0.011:7:b", "0.008:2:a"]
    assert harden_text(row, Output("o", decimals=2)) == ["0.98:9:z", "0.01:2:a", "0.01:7:b"]


def test_labels_pass_and_hidden_numbers_do_not():
    assert harden_text(["setosa", "7"], Output("o", decimals=2)) == ["setosa", "7"]
    for text in ("score=0.981557", "9.8e-1", "p .5", "0.5:0:a 0.25"):
        with pytest.raises(ValueError, match=r"score|label"):
            harden_text([text], Output("o", decimals=2))
    with pytest.raises(ValueError, match="one row"):
        harden_text(["0.5:0", "setosa"], Output("o", decimals=2))
    assert harden_text(["p .5"], Output("o")) == ["p .5"], "a profile that keeps nothing back keeps no text back"
