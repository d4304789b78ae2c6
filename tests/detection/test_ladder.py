"""The ladder in the one way: what each rung answers, what it leaves in the trail, and what a caller can tell."""

import json
from dataclasses import replace

import msgspec
import pytest

from proxy.errors import ConfigError
from proxy.exchange import Degraded, Pattern, Score, SequenceFinding, Suspicion
from proxy.policy.compile import compile_policy
from proxy.reasons import Reason
from proxy.record import Decision
from tests.gateway.simulators import NOW, POLICY, House, SimulatedAuthenticator, header, principal

STRANGE = Score(0.001, 0.01, 40.0, 9.0, 0)
NEAR = SequenceFinding(Pattern.NEAR_DUPLICATES, 3, 3, 40, 0, NOW - 100, 0.25)
RUNGS = ", sequences: enforce, ladder: {near_duplicates: [label, step_up, delay, refuse], colluding: [delay]}"


def house(finding: SequenceFinding | None = NEAR, more: str = RUNGS, **parts: object) -> House:
    built = House(more=more, **parts)  # type: ignore[arg-type]
    built.sequences.finding = finding
    return built


def decision(of: House) -> Decision:
    record = of.trail.records[0]
    assert isinstance(record, Decision)
    return record


async def test_what_was_seen_is_observed_for_the_account_and_the_detectors_file() -> None:
    asked = house(None)
    assert (await asked.ask()).status == 200
    assert asked.sequences.observed == [(principal().account, "0" * 64)]
    assert decision(asked).judged.sequence is None


async def test_without_the_word_nobody_looks_at_sequences() -> None:
    asked = house(NEAR, more="")
    assert (await asked.ask()).status == 200
    assert asked.sequences.observed == []


async def test_a_shadow_records_the_rung_and_lets_pass() -> None:
    asked = house(replace(NEAR, count=24), more=", sequences: shadow")
    plain = await House().ask()
    assert (await asked.ask()).body == plain.body
    assert decision(asked).judged.sequence.verdict == "shadow_refuse"


@pytest.mark.parametrize(
    ("count", "signed_in", "status", "verdict", "slept"),
    [
        (3, NOW - 600, 200, "degrade", 0),
        (6, NOW - 600, 401, "step_up", 0),
        (6, NOW - 50, 200, "step_up", 0),
        (12, NOW - 600, 200, "delay", 1),
        (24, NOW - 600, 403, "refuse", 0),
        (96, NOW - 50, 403, "refuse", 0),
    ],
)
async def test_each_rung_answers_and_leaves_its_evidence(count, signed_in, status, verdict, slept) -> None:
    who = SimulatedAuthenticator(principal("analyst", auth_time=int(signed_in)))
    asked = house(replace(NEAR, count=count), authenticator=who)
    answer = await asked.ask()
    assert answer.status == status
    assert len(asked.clock.slept) == slept
    record = decision(asked)
    assert msgspec.to_builtins(record.judged.sequence) == {
        "pattern": "near_duplicates",
        "count": count,
        "limit": 3,
        "window": 40,
        "row": 0,
        "since": NOW - 100,
        "verdict": verdict,
        "distance": 0.25,
    }
    assert record.reason == (Reason.ALLOWED if status == 200 else Reason.SUSPICIOUS_SEQUENCE)
    assert len(asked.upstream.sent) == (status == 200)


async def test_step_up_says_how_recent_and_who_cannot_sign_in_is_not_answered() -> None:
    asked = house(replace(NEAR, count=6))
    asked.authenticator.who = principal("analyst", auth_time=None)
    answer = await asked.ask()
    assert answer.status == 401
    assert b'error="insufficient_user_authentication"' in header(answer, b"www-authenticate")
    assert b'max_age="100"' in header(answer, b"www-authenticate")


async def test_the_highest_rung_of_all_signals_decides() -> None:
    asked = house(replace(NEAR, count=24))
    asked.detector.score = STRANGE
    assert (await asked.ask()).status == 403
    asked = house(replace(NEAR, pattern=Pattern.COLLUDING, count=3))
    asked.detector.score = STRANGE
    assert (await asked.ask()).status == 200
    assert len(asked.clock.slept) == 1
    assert isinstance(asked.observer.seen[0][0].verdict, Degraded)
    assert asked.observer.seen[0][0].verdict.response is Suspicion.DELAY


async def test_a_degraded_answer_has_the_shape_of_a_normal_one() -> None:
    """The same headers, keys, types and lengths; only the scores are coarser."""

    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [shape(inner) for inner in value]
        return type(value)

    normal, degraded = await house(None).ask(), await house().ask()
    assert normal.body != degraded.body
    assert normal.status == degraded.status
    assert normal.headers == degraded.headers
    first, second = json.loads(normal.body), json.loads(degraded.body)
    assert shape(first) == shape(second)
    assert {**first, "outputs": None} == {**second, "outputs": None}
    assert [{**one, "data": None} for one in first["outputs"]] == [{**one, "data": None} for one in second["outputs"]]


async def test_a_refusal_tells_the_caller_nothing_of_its_cause() -> None:
    row, sequence = house(None, response="refuse"), house(replace(NEAR, count=24))
    row.detector.score = STRANGE
    answers = [await row.ask(), await sequence.ask()]
    assert answers[0].body == answers[1].body
    assert answers[0].headers == answers[1].headers


# ── the language ────────────────────────────────────────────────────────────────────────────────────────────────


def compiled(detector: str):
    text = POLICY.replace("mode: MODE, on_suspicion: RESPONSE", detector)
    return compile_policy({"policy.yaml": text.encode()}).allows.rules[0].detector


def test_the_defaults_refuse_sequences_and_never_for_colluding() -> None:
    use = compiled("sequences: enforce")
    assert use.sequences.rungs == {
        Pattern.NEAR_DUPLICATES: (Suspicion.REFUSE,),
        Pattern.OUT_OF_DISTRIBUTION: (Suspicion.REFUSE,),
        Pattern.COLLUDING: (Suspicion.LABEL,),
    }
    assert (use.sequences.near, use.sequences.decay) == (True, 86_400.0)
    assert compiled("sequences: enforce, traffic: time_series").sequences.near is False
    assert compiled("mode: enforce").sequences is None


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ("on_suspicion: step_up", "one row is no reason to sign in again"),
        ("traffic: time_series", "`traffic` means nothing without `sequences`"),
        ("ladder: {decay: 1h}", "`ladder` means nothing without `sequences`"),
        ("mode: off, sequences: enforce", "need a detector that is not off"),
        ("sequences: enforce, ladder: {near_duplicates: [refuse, label]}", "the rungs must rise"),
        ("sequences: enforce, ladder: {near_duplicates: [label, label]}", "the rungs must rise"),
        ("sequences: enforce, ladder: {colluding: [label, refuse]}", "`colluding` cannot refuse"),
        ("sequences: enforce, ladder: {near_duplicates: []}", "near_duplicates"),
    ],
)
def test_a_ladder_that_cannot_be_meant_is_refused(detector, message) -> None:
    with pytest.raises(ConfigError, match=message):
        compiled(detector)
