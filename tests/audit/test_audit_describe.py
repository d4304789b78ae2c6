"""Records of whatever a caller, an issuer, a detector or an upstream comes up with: encodable, without secrets."""

import json
from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest
from stories import DETECTOR, PSEUDONYMS, SECRET, call, exchange, grant, principal

from proxy.audit.chain import Chain, read_event, spell, split
from proxy.audit.describe import completion, decision, refused_message
from proxy.audit.inert import MAX_NAME, inert, inert_set
from proxy.audit.pseudonym import MEMO_ENTRIES, Pseudonyms
from proxy.audit.skeleton import MAX_PLACES, skeleton
from proxy.exchange import Degraded, Denial, Mode, Output, Peer, Reply, Score, Suspicion, Target
from proxy.reasons import Reason
from proxy.record import Event

HOSTILE = [
    "\ud800",
    "\x00\x1b[31m",
    "a\nb\r\n",
    "=cmd|'/c calc'!A1",
    "<script>alert(1)</script>",
    "\u202eevil",
    "x" * 10**6,
]


def again(event: Event) -> object:
    """Return the event as an auditor reads it back."""
    return read_event(spell(event))


def test_an_allowed_exchange_becomes_a_pair() -> None:
    story = exchange()
    first, second = decision(story, PSEUDONYMS), completion(story, PSEUDONYMS)
    assert (first.effect, first.reason, first.rule, first.event) == (
        "allow",
        "allowed",
        "analysts-read-scores",
        story.event,
    )
    assert first.spent is not None
    assert first.spent.remaining == (59, 999)
    assert first.actor is not None
    assert first.actor.roles == ("analyst", "reader")
    assert (second.event, second.upstream_status, second.applied) == (story.event, 200, first.obligations)
    assert again(first) == first
    assert again(second) == second


def test_a_refusal_tells_its_reason_status_and_nearest_rule() -> None:
    story = exchange(grant=None, charge=None, score=None, denial=Denial(Reason.NO_RULE, "near"), reason=Reason.NO_RULE)
    story.status, story.detail = 403, "no rule"
    record = decision(story, PSEUDONYMS)
    assert (record.effect, record.reason, record.rule, record.status) == ("deny", "no_rule", "near", 403)


def test_what_is_called_allowed_without_a_grant_is_a_denial() -> None:
    """An exchange that the gateway never finished must not read as permitted."""
    assert decision(exchange(grant=None), PSEUDONYMS).effect == "deny"


def test_a_message_that_the_listener_refused_has_a_record_too() -> None:
    record = refused_message("e" * 32, Reason.MALFORMED_MESSAGE, 400, "two\nHosts", Peer("192.0.2.1"), "p", PSEUDONYMS)
    assert (record.effect, record.detail, record.trace) == ("deny", "two\ufffdHosts", "")
    assert again(record) == record


@pytest.mark.parametrize(
    "text", HOSTILE, ids=["surrogate", "control", "lines", "formula", "script", "bidi", "megabyte"]
)
def test_hostile_strings_become_one_inert_line(text: str) -> None:
    """Any string in any field: the journal has one line more, and the line reads back."""
    who = principal(
        subject=text,
        issuer=text,
        roles=frozenset({text}),
        factors=frozenset({text}),
        acr=text,
        key_id=text,
        token_id=text,
    )
    story = exchange(
        principal=who, grant=grant(who), call=call(method=text, peer=Peer(text)), target=Target("infer", text, text)
    )
    story.detail = text
    story.reply = Reply(500, ((b"content-type", text.encode("utf-8", "replace")),), text.encode("utf-8", "replace"))
    chain = Chain("s")
    for record in (decision(story, PSEUDONYMS), completion(replace(story, reason=Reason.UPSTREAM_ERROR), PSEUDONYMS)):
        line, _ = chain.add(record, "00", 1, 1)
        assert line.count(b"\n") == 1
        assert len(line) < 10_000
        assert read_event(split(line[:-1])[1]) == record
        assert json.loads(line)["v"] == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_do_not_lose_the_record(number: float) -> None:
    record = decision(exchange(score=Score(number, number, number, number, 0)), PSEUDONYMS)
    assert again(record) == record


@pytest.mark.parametrize(
    ("mode", "ladder", "expected"),
    [
        (Mode.ENFORCE, Suspicion.LABEL, "degrade"),
        (Mode.ENFORCE, Suspicion.REFUSE, "refuse"),
        (Mode.SHADOW, Suspicion.LABEL, "shadow_degrade"),
        (Mode.SHADOW, Suspicion.REFUSE, "shadow_refuse"),
    ],
)
def test_a_suspicion_tells_what_was_or_would_have_been_done(mode: Mode, ladder: Suspicion, expected: str) -> None:
    use = replace(DETECTOR, mode=mode, on_suspicion=ladder)
    story = exchange(grant=grant(principal(), detector=use), score=Score(0.001, 0.01, 9, 3, 0))
    record = decision(story, PSEUDONYMS)
    assert record.judged is not None
    assert record.judged.verdict == expected


def test_obligations_asked_and_applied_are_both_recorded() -> None:
    story = exchange(verdict=Degraded(Score(0.001, 0.01, 9, 3, 0), Output("coarse", 2, 1, label_only=True)))
    asked, applied = decision(story, PSEUDONYMS).obligations, completion(story, PSEUDONYMS).applied
    assert asked is not None
    assert applied is not None
    assert (asked.label_only, applied.label_only) == (False, True)


def test_what_may_be_asked_for_beside_the_input_is_recorded_where_the_policy_speaks_of_it() -> None:
    story = exchange(grant=grant(principal(), terms=("echo", "max_tokens up to 8, no more")))
    told = decision(story, PSEUDONYMS).obligations
    assert told is not None
    assert told.parameters == ("echo", "max_tokens up to 8, no more")
    plain = decision(exchange(), PSEUDONYMS).obligations
    assert b"parameters" not in msgspec.json.encode(plain)


# ── pseudonyms ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_input_in_two_parts_is_the_same_input() -> None:
    """A name that was recorded once is found again, however the body is held."""
    whole = exchange()
    assert whole.query is not None
    body = b'{"inputs": []}' + bytes(range(256))
    whole.query = msgspec.structs.replace(whole.query, body=body)
    parted = exchange()
    parted.query = msgspec.structs.replace(whole.query, body=body[:14], behind=memoryview(body)[14:])
    first, second = decision(whole, PSEUDONYMS), decision(parted, PSEUDONYMS)
    assert (first.input_hash, first.input_bytes) == (second.input_hash, second.input_bytes)
    assert second.input_bytes == len(body)
    assert PSEUDONYMS.input(body[:14]) != second.input_hash


def test_what_stands_behind_the_body_never_survives_either() -> None:
    """An upstream that repeats a string of a binary tensor: the record has the bones only."""
    story = exchange(reason=Reason.UPSTREAM_ERROR, reply=Reply(500, (), b"CANARY.py:3 " + TRACEBACK))
    assert story.query is not None
    for behind, places in ((b"", ("CANARY.py:3", "_base.py:412")), (b"\x09\0\0\0CANARY.py", ("_base.py:412",))):
        story.query = msgspec.structs.replace(story.query, behind=memoryview(behind))
        told = completion(story, PSEUDONYMS).upstream_error
        assert told is not None
        assert told.places == places


def test_names_are_stable_and_apart_by_purpose_key_and_frame() -> None:
    other = Pseudonyms(bytes(32))
    names = [
        PSEUDONYMS.subject("a", "b:c"),
        PSEUDONYMS.subject("a:b", "c"),
        PSEUDONYMS.token("a", "b:c"),
        PSEUDONYMS.address("b:c"),
        PSEUDONYMS.input(b"b:c"),
        other.subject("a", "b:c"),
    ]
    assert len(set(names)) == len(names)
    assert names[0] == Pseudonyms(SECRET).subject("a", "b:c")
    assert names[0].startswith(PSEUDONYMS.epoch + ".")
    assert other.epoch != PSEUDONYMS.epoch


def test_a_flood_of_addresses_costs_no_memory() -> None:
    names = Pseudonyms(SECRET)
    for number in range(MEMO_ENTRIES + 10):
        names.address(str(number))
    assert len(names._addresses._known) == MEMO_ENTRIES
    assert names.address("0") == Pseudonyms(SECRET).address("0")


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        Pseudonyms(b"short")


# ── inert ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inert_keeps_what_people_write() -> None:
    assert inert("Zoë 東京 ok") == "Zoë 東京 ok"
    assert len(inert("x" * 9_999)) == MAX_NAME
    assert inert_set(frozenset(str(number) for number in range(999)))[-1] == "\u2026"


# ── skeleton ────────────────────────────────────────────────────────────────────────────────────────────────────────

TRACEBACK = b"""Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/sklearn/linear_model/_base.py", line 412, in decision_function
    raise ValueError("X has 3 features")
ValueError: X has 3 features
"""


def test_a_traceback_leaves_its_bones() -> None:
    kept = skeleton(TRACEBACK, b"Text/Plain; charset=utf-8", b"")
    assert (kept.errors, kept.places, kept.content_type) == (("ValueError",), ("_base.py:412",), "text/plain")
    assert (kept.bytes, kept.digest) == (len(TRACEBACK), sha256(TRACEBACK).hexdigest())


def test_a_traceback_inside_json_leaves_the_same() -> None:
    assert skeleton(json.dumps({"error": TRACEBACK.decode()}).encode(), None, b"").places == ("_base.py:412",)


CANARIES = [
    'File "/home/CANARY/CANARY.py", line 7, in CANARY',
    "CANARY.cc:31",
    "CANARYError: CANARYException",
    "/etc/CANARY",
    "CANARY",
]


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("spelling", ["plain", "json", "escaped", "percent"])
def test_what_a_caller_sent_never_survives(canary: str, spelling: str) -> None:
    """The model server quotes the input in its traceback; nothing of it reaches the record."""
    sent = {
        "plain": canary.encode(),
        "json": json.dumps({"data": canary}).encode(),
        "escaped": canary.replace("C", "\\u0043").encode(),
        "percent": canary.replace("C", "%43").encode(),
    }[spelling]
    body = TRACEBACK + canary.encode() + json.dumps({"data": canary}).encode()
    kept = skeleton(body, b"text/x-" + canary.encode(), sent)
    assert (
        b"CANARY"
        not in spell(completion(exchange(), PSEUDONYMS))
        + json.dumps([kept.errors, kept.places, kept.content_type]).encode()
    )
    assert kept.places == ("_base.py:412",)


def test_a_whole_exchange_with_canaries_everywhere_leaves_none() -> None:
    canary = "CANARY"
    who = principal(subject=canary, token_id=canary)
    story = exchange(
        principal=who,
        grant=grant(who),
        call=call(
            path="/v2/models/CANARY", query="q=CANARY", headers=((b"x-note", b"CANARY.py:3"),), peer=Peer(canary)
        ),
        reply=Reply(500, ((b"server", b"CANARY"),), b"CANARY.py:3 CANARYError " + TRACEBACK),
        reason=Reason.UPSTREAM_ERROR,
        status=502,
    )
    story.query = msgspec.structs.replace(story.query, body=b'"CANARY"') if story.query else None
    for record in (decision(story, PSEUDONYMS), completion(story, PSEUDONYMS)):
        assert b"CANARY" not in spell(record)


def test_places_and_the_scan_are_capped() -> None:
    body = b"\n".join(b'File "f%d.py", line 1' % number for number in range(100_000))
    assert len(skeleton(body, None, b"").places) == MAX_PLACES


def test_evil_bodies_cost_linear_time() -> None:
    """No assertion on time: a quadratic pattern would not come back."""
    for body in (b'File "' * 200_000, b"a." * 500_000, b'File \\"' + b"/" * 10**6, b"E" * 10**6):
        skeleton(body, None, body)
