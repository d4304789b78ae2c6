"""Replies of servers that declare no shape: every form of one row's scores that was met, and some others."""

import base64
import json
import struct

from hypothesis import strategies as st

from tests.oracle.replies import CLASSIFIED, LABELS, NAMES, SCORE, VALUES, coded

FEW = st.integers(0, 9)
NUMBER = SCORE | SCORE | st.sampled_from([0, 1]) | FEW  # JavaScript writes 0 for 0.0
CLASS = st.sampled_from(["setosa", "versicolor", "virginica", "class 3"])
KEY = st.sampled_from(["label", "score", "p", "scores", "index", "p.98155"])


def wrapped(number):
    """A number as an array of the shape (1,) or (1, 1)."""
    return st.one_of(number, number.map(lambda one: [one]), number.map(lambda one: [[one]]))


def objects(**fields):
    return st.fixed_dictionaries(fields)


FORMS = [  # each: what one row may get
    SCORE,
    wrapped(SCORE),
    st.lists(SCORE, min_size=2, max_size=5),
    st.lists(NUMBER, max_size=5),
    st.lists(wrapped(SCORE), max_size=5),
    st.lists(SCORE.map(lambda one: [one]), max_size=5),
    st.lists(st.lists(SCORE, max_size=3), max_size=4),
    st.dictionaries(CLASS, NUMBER, max_size=4),
    st.dictionaries(CLASS, SCORE.map(lambda one: [one]), max_size=4),
    st.dictionaries(CLASS, wrapped(NUMBER) | LABELS, max_size=4),
    st.lists(objects(label=CLASS, score=SCORE), max_size=4),
    st.lists(objects(label=CLASS, score=NUMBER), max_size=4),
    st.lists(objects(label=CLASS, score=NUMBER, logit=SCORE), max_size=4),
    st.lists(objects(index=FEW, score=wrapped(SCORE)), max_size=4),
    st.lists(objects(box=st.lists(SCORE, min_size=4, max_size=4), label=CLASS, score=SCORE), max_size=3),
    st.lists(st.tuples(CLASS, NUMBER).map(list), max_size=4),
    st.lists(st.tuples(CLASS, wrapped(NUMBER)).map(list), max_size=4),
    st.lists(CLASSIFIED, max_size=4),
    st.integers(1, 4).flatmap(
        lambda n: objects(
            labels=st.lists(CLASS, min_size=n, max_size=n), scores=st.lists(NUMBER, min_size=n, max_size=n)
        )
    ),
    st.integers(1, 4).flatmap(
        lambda n: objects(
            labels=st.lists(CLASS, min_size=n, max_size=n),
            scores=st.lists(SCORE, min_size=n, max_size=n),
            logits=st.lists(wrapped(SCORE), min_size=n, max_size=n),
        )
    ),
    objects(label=LABELS, score=NUMBER),
    st.dictionaries(KEY, NUMBER | LABELS | st.lists(NUMBER, max_size=3), max_size=4),
    LABELS,
    FEW,
    VALUES,
]


@st.composite
def each(draw, rows):
    """One result for each row, of one form, or columns of such; now and then one too many."""
    form = draw(st.sampled_from(FORMS))
    count = rows + draw(st.sampled_from([0, 0, 0, 0, 0, 1]))
    column = st.lists(form, min_size=count, max_size=count)
    if draw(st.integers(0, 3)):
        return draw(column)
    return draw(st.dictionaries(CLASS | NAMES, column, max_size=3))


@st.composite
def reply(draw, rows, *keys):
    """Headers and body. `keys`: where the results stand; none: they are the whole answer."""
    content = draw(each(rows))
    if rows == 1 and isinstance(content, list) and draw(st.booleans()):
        content = content[0] if content else None  # not a list of one: the row itself
    for key in reversed(keys):
        content = {key: content} | draw(BESIDE)
    kind = draw(st.sampled_from(["application/json"] * 6 + ["application/json; charset=utf-8", "text/plain", ""]))
    headers = {"content-type": kind} if kind else {}
    return draw(coded(headers, json.dumps(content).encode()))


BESIDE = st.sampled_from(
    [{}, {}, {"logits": [0.98155]}, {"p": 0.98155}, {"model_name": "m", "id": "0.98155"}, {"error": "at 0.98155"}]
)


# ── openai ──────────────────────────────────────────────────────────────────────────────────────────────────────

LOGPROB = st.floats(-30, 0) | st.sampled_from([-0.018, -9999.0, 0.5, 0])
TOKEN = st.sampled_from(["a", " the", "3", "\n", "ß"])
PLACE = objects(
    token=TOKEN,
    logprob=LOGPROB,
    top_logprobs=st.lists(objects(token=TOKEN, logprob=LOGPROB, bytes=st.just([97])), max_size=4),
)
USAGE = st.sampled_from([{}, {"usage": {"prompt_tokens": 2, "total_tokens": 7}}, {"usage": {"total_tokens": 0.98155}}])


def chat(said):
    choice = objects(
        index=st.integers(0, 2),
        finish_reason=st.sampled_from([None, "stop", "0.98155"]),
        logprobs=st.none() | objects(content=st.none() | st.lists(PLACE, max_size=3)),
        **{said: objects(role=st.just("assistant"), content=st.sampled_from(["seven", "", None]), p=SCORE)},
    )
    return st.builds(
        lambda choices, more: {"id": "0.98155", "choices": choices} | more, st.lists(choice, max_size=2), USAGE
    )


TEXT_LOGPROBS = st.integers(0, 3).flatmap(
    lambda n: objects(
        tokens=st.lists(TOKEN, min_size=n, max_size=n),
        token_logprobs=st.lists(LOGPROB | st.none(), min_size=n, max_size=n),
        top_logprobs=st.none()
        | st.lists(st.none() | st.dictionaries(TOKEN, LOGPROB, max_size=4), min_size=n, max_size=n),
        text_offset=st.none() | st.lists(st.integers(0, 500), min_size=n, max_size=n) | st.just([0.98155]),
    )
)
COMPLETION = st.builds(
    lambda choices, more: {"choices": choices, "p": 0.98155} | more,
    st.lists(objects(index=st.integers(0, 2), text=st.just("seven"), logprobs=st.none() | TEXT_LOGPROBS), max_size=2),
    USAGE,
)
VECTOR = st.lists(SCORE, max_size=4)
EMBEDDINGS = st.builds(
    lambda data, more: {"data": data} | more,
    st.lists(objects(index=st.integers(0, 2), embedding=VECTOR | VECTOR.map(lambda v: as_base64(v))), max_size=2),
    USAGE,
)


def as_base64(numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


OPENAI = {"chat": chat("message"), "completions": COMPLETION, "embeddings": EMBEDDINGS}
CHUNKS = {"chat": chat("delta"), "completions": COMPLETION}


def events(chunks):
    """A stream of chunks, in the frames that servers use."""
    data = st.lists(chunks.map(json.dumps) | st.sampled_from(["[DONE]", "0.98155", ""]), max_size=4)
    frames = st.sampled_from(["data: {}\n\n", "data:{}\r\n\r\n", "id: 0.98155\ndata: {}\n\n", "{}\n\n"])
    return st.builds(lambda one, frame: "".join(frame.replace("{}", text) for text in one).encode(), data, frames)
