"""JSON without a declared shape: every form in which scores stand in it, under every profile."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import loose_json
from proxy.dialects.loose_json import harden, harden_rows
from proxy.errors import UpstreamFault
from proxy.exchange import Output, Reply
from proxy.reasons import Reason

COARSE = Output("coarse", decimals=2)
BEST = Output("best", decimals=2, top_k=1)
LABEL = Output("label", label_only=True)
RAW = [0.018442780456807827, 0.9815572050622741, 1.4480918258509202e-8]

HARDENED = [
    # name, value, output, what may leave
    ("a row", RAW, COARSE, [0.02, 0.98, 0.0]),
    ("a row, one class", RAW, BEST, [0.0, 0.98, 0.0]),
    ("a row, the label", RAW, LABEL, [0.0, 1.0, 0.0]),
    ("one score", RAW[1], COARSE, 0.98),
    ("one score, the label", RAW[1], LABEL, 1.0),
    ("a label", 7, LABEL, 7),
    ("a word", "setosa", LABEL, "setosa"),
    ("nothing", None, COARSE, None),
    ("scaled scores", [981557, 18443], Output("one", top_k=1), [981557, 0]),
    ("names and scores", {"b": RAW[0], "a": RAW[1], "c": RAW[2]}, COARSE, {"a": 0.98, "b": 0.02, "c": 0.0}),
    ("names and scores, one class", {"b": RAW[0], "a": RAW[1], "c": RAW[2]}, BEST, {"a": 0.98}),
    ("names and scores written as JavaScript does", {"b": 0, "a": 1, "c": 1.5e-9}, BEST, {"a": 1}),
    ("a score and a class number", {"score": RAW[1], "class": 3}, LABEL, {"score": 1.0, "class": 3}),
    (
        "labelled scores",
        [{"label": "b", "score": RAW[0]}, {"label": "a", "score": RAW[1]}],
        BEST,
        [{"label": "a", "score": 0.98}],
    ),
    ("pairs", [["b", RAW[0]], ["a", RAW[1]]], BEST, [["a", 0.98]]),
    (
        "columns",
        {"labels": ["a", "b", "c"], "scores": RAW, "n": 5},
        BEST,
        {"labels": ["b"], "scores": [0.98], "n": 5},
    ),
    ("two outputs", {"p": RAW, "logits": [3.14159, -2.71828]}, BEST, {"p": [0.0, 0.98, 0.0], "logits": [3.14, 0.0]}),
    ("a nested row", [[RAW]], LABEL, [[[0.0, 1.0, 0.0]]]),
]

UNREADABLE = [
    ("a number in a word", "p=0.98", COARSE),
    ("a number in a name", {"0.9815": "setosa"}, LABEL),
    ("a classification as a name", {"0.9815:1:setosa": "x"}, LABEL),
    ("a list of several kinds", [1.5, "x", 2.5], COARSE),
    ("numbers and lists", [[1.5], 2.5], COARSE),
    ("depth", json.loads("[" * 40 + "]" * 40), COARSE),
]


@pytest.mark.parametrize(("name", "value", "output", "shown"), HARDENED, ids=[case[0] for case in HARDENED])
def test_every_form_is_hardened(name, value, output, shown):
    assert harden(value, output) == shown
    assert json.dumps(harden(value, output)) == json.dumps(shown), "the order may tell a ranking"


@pytest.mark.parametrize(("name", "value", "output"), UNREADABLE, ids=[case[0] for case in UNREADABLE])
def test_what_cannot_be_read_does_not_leave(name, value, output):
    with pytest.raises(UpstreamFault) as caught:
        harden(value, output)
    assert caught.value.reason is Reason.UPSTREAM_UNREADABLE


def test_each_row_of_a_batch_is_a_row_of_its_own():
    assert harden_rows([RAW, RAW], 2, BEST) == [[0.0, 0.98, 0.0]] * 2
    assert harden_rows([0.123, 0.456], 2, LABEL) == [0.0, 0.0]
    assert harden_rows({"p": [RAW], "name": ["a"]}, 1, BEST) == {"p": [[0.0, 0.98, 0.0]], "name": ["a"]}
    for wrong in ([RAW], RAW[0], {"p": [RAW]}, None):
        with pytest.raises(UpstreamFault):
            harden_rows(wrong, 2, COARSE)


def test_only_json_is_read():
    reply = Reply(200, ((b"content-type", b"text/html"),), b"1")
    bare = Reply(200, (), b"1")
    assert loose_json.read_reply(bare, untyped=True) == 1
    for given_reply, untyped in ((reply, False), (reply, True), (bare, False), (Reply(200, (), b"NaN"), True)):
        with pytest.raises(UpstreamFault):
            loose_json.read_reply(given_reply, untyped=untyped)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=30,
)


def fractions(value):
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from fractions(inner)


@given(JSON, st.sampled_from([COARSE, BEST, LABEL]))
def test_whatever_comes_no_fraction_is_finer_than_the_profile(value, output):
    """Any JSON is hardened or refused; numbers too large for the digits to matter stay whole."""
    try:
        shown = harden(value, output)
    except UpstreamFault:
        return
    digits = 0 if output.label_only else 2
    assert all(number == round(number, digits) for number in fractions(shown))


SEVERAL = [  # what the fuzzer found: scores of one row that stood in something
    ("arrays of one", [[0.9], [0.06], [0.04]], [[0.9], [0.0], [0.0]]),
    ("names and arrays of one", {"a": [0.06], "b": [0.94]}, {"b": [0.94]}),
    (
        "scores as JavaScript writes them",
        [{"label": "a", "score": 0.9}, {"label": "b", "score": 0}],
        [{"label": "a", "score": 0.9}],
    ),
    ("two kinds of scores", [{"label": "a", "p": 0.9, "z": 2.5}, {"label": "b", "p": 0.1, "z": -2.5}], None),
    ("a name for each", [{"a": 0.9}, {"b": 0.1}], None),
    ("words beside two kinds", {"labels": ["a", "b"], "p": [0.9, 0.1], "z": [2.5, -2.5]}, None),
    ("a name and an object for each", {"a": {"score": 0.9}, "b": {"score": 0.1}}, None),
    ("objects deep inside", {"x": {"a": [{"score": [0.9]}]}, "y": {"b": {"c": {"score": 0.1}}}}, None),
    ("an object for each", [{"a": {"score": 0.9}}, {"b": {"score": 0.1}}], None),
    ("a score beside an object with one", {"score": 0.9, "b": {"score": 0.1}}, None),
    ("a label and its score for each", {"first": ["setosa", 0.9], "second": ["virginica", 0.1]}, None),
    ("labels and scores in lists of one", [[["setosa", 0.9]], [["virginica", 0.1]]], None),
    ("a score beside nothing for each", {"a": [[0.9], None], "b": [[0.1], None]}, None),
    ("a label and its score", {"best": ["setosa", 0.9123], "n": 3}, {"best": ["setosa", 0.91], "n": 3}),
    ("one score, deep inside", {"a": {"b": {"score": 0.9123}}, "n": 3}, {"a": {"b": {"score": 0.91}}, "n": 3}),
    ("a 0 or 1 beside each score", [{"a": 0.9, "b": [[1]]}, {"a": 0.1}], None),
    ("rows by name in what one row got", [{"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}], None),
    ("a word beside names", {"m": "x", "b": 0.05, "a": 0.9, "c": 0.04}, {"m": "x", "a": 0.9, "b": 0.0, "c": 0.0}),
]


@pytest.mark.parametrize(("name", "value", "shown"), SEVERAL, ids=[case[0] for case in SEVERAL])
def test_scores_of_one_row_are_found_wherever_they_stand(name, value, shown):
    """Or, where nobody can say which of them belong together, they stay."""
    if shown is None:
        with pytest.raises(UpstreamFault, match="top_k or label_only must know"):
            harden(value, BEST)
        assert harden(value, COARSE)
        return
    assert json.dumps(harden(value, BEST)) == json.dumps(shown)


COLUMNS = [
    ("an object for each", {"a": {"score": [0.9, 0.2]}, "b": {"score": [0.1, 0.8]}}, None),
    ("objects in lists", {"a": [{"score": 0.9}, {"score": 0.2}], "b": [{"score": 0.1}, {"score": 0.8}]}, None),
    ("a column beside an object", {"a": [0.9, 0.2], "x": {"y": {"b": [0.1, 0.8]}}}, None),
    ("one column, deep inside", {"a": {"b": [0.912, 0.2]}, "n": [1, 2]}, {"a": {"b": [0.91, 0.2]}, "n": [1, 2]}),
]


@pytest.mark.parametrize(("name", "value", "shown"), COLUMNS, ids=[case[0] for case in COLUMNS])
def test_columns_of_one_row_are_found_wherever_they_stand(name, value, shown):
    if shown is None:
        with pytest.raises(UpstreamFault, match="top_k or label_only must know"):
            harden_rows(value, 2, BEST)
        assert harden_rows(value, 2, COARSE)
    else:
        assert harden_rows(value, 2, BEST) == shown


def test_depth_is_refused_and_not_a_fault_of_ours():
    for depth in (40, 400):
        for value in (
            json.loads('{"a":' * depth + "[0.5]" + "}" * depth),
            json.loads("[" * depth + "0.5" + "]" * depth),
        ):
            with pytest.raises(UpstreamFault):
                harden_rows(value, 1, COARSE)


def test_columns_are_rows_lying_down():
    """The same scores by columns, by rows: the same answer, but for the names, which a column cannot do without."""
    columns = {"a": [0.9, 0.2], "b": [[0.1], [0.8]], "class": [7, 1]}
    assert harden_rows(columns, 2, BEST) == {"a": [0.9, 0.0], "b": [[0.0], [0.8]], "class": [7, 1]}
    assert harden_rows({"a": [[], 1.0], "b": [[], 0.5]}, 2, BEST) == {"a": [[], 1.0], "b": [[], 0.0]}


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), max_size=6), st.randoms())
def test_no_order_of_names_or_labels_tells_a_ranking(scores, random):
    """A server may write its classes best first: what leaves is the same as if it had not."""
    shuffled = list(scores.items())
    random.shuffle(shuffled)
    ways = (
        lambda pairs: dict(pairs),
        lambda pairs: {"model": "x"} | dict(pairs),
        lambda pairs: [{"label": label, "score": score} for label, score in pairs],
        lambda pairs: {"labels": [label for label, _ in pairs], "scores": [score for _, score in pairs]},
        lambda pairs: [[label, score] for label, score in pairs],
    )
    if len(set(scores.values())) == len(scores) > 1:
        for way in ways:
            first, second = (json.dumps(harden(way(pairs), COARSE)) for pairs in (list(scores.items()), shuffled))
            assert first == second
