"""hip replay: yesterday's records against another policy, and what a record does not hold."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from policy_building import BASE, NOW, READERS, policy, principal
from typer.testing import CliRunner, Result

from proxy.audit.chain import Chain
from proxy.cli import app
from proxy.exchange import Action, Denial, Target
from proxy.policy.decide import authorize
from proxy.policy.model import AllowRule
from proxy.policy.recorded import Recorded, Untold, decide_again
from proxy.policy.replaying import Change, Replay
from proxy.reasons import Reason
from proxy.record import Actor, Completion, Decision, Judged, Obligations, Source, Spent

ALICE = Actor(
    subject="e1.alice", issuer="corp", roles=("reader",), factors=("otp", "pwd"), token="t", key_id="k",
    auth_time=int(NOW) - 60,
)  # fmt: skip
COARSE = Obligations(output="coarse", decimals=2)
TRIAL = Spent(budget="trial", requests=1, rows=3, tokens=0, remaining=(59, 997), revision=1)
_FACTS = {"event": "0" * 32, "policy": "", "method": "POST", "trace": "", "span": "", "source": Source(address="e1.a")}


def allowed(**changes: object) -> Decision:
    facts = {"actor": ALICE, "action": "infer", "model": "iris", "dialect": "oip-v2", "rule": "readers"}
    facts |= {"obligations": COARSE, "spent": TRIAL, "effect": "allow", "reason": "allowed"}
    return Decision(**(_FACTS | facts | changes))  # type: ignore[arg-type]


def denied(reason: Reason = Reason.NO_RULE, **changes: object) -> Decision:
    return allowed(effect="deny", reason=reason, rule=None, obligations=None, spent=None, **changes)


def replayed(text: str, *events: Decision) -> Replay:
    replay = Replay(policy(text))
    for number, event in enumerate(events):
        replay.add(event, NOW + number)
    return replay


def changes(text: str, *events: Decision) -> dict[Change, tuple[str, str]]:
    return {case.change: (case.before, case.after) for case in replayed(text, *events).cases}


def test_the_same_policy_changes_nothing() -> None:
    replay = replayed(BASE + READERS, allowed(), denied(model="other", reason=Reason.NO_RULE))
    assert (replay.same, replay.cases, replay.untold) == (2, {}, {})


GUESTS = READERS.replace("[reader]", "[reader, guest]")
GUEST = Actor(subject="e1.bob", issuer="corp", roles=("guest",), factors=("otp", "pwd"), token="t", key_id="k")

VECTORS = [
    ("gains", BASE + GUESTS, denied(actor=GUEST), Change.GAINS, ("no_rule", "readers: MFA, budget trial, 2 decimals")),
    ("loses", BASE + READERS.replace("reader]", "writer]"), allowed(), Change.LOSES, ("readers", "no_rule")),
    (
        "loses by a deny rule",
        BASE + READERS + "  - id: stop\n    deny: {roles: [reader], clients: [app]}\n",
        allowed(actor=Actor(**{**{f: getattr(ALICE, f) for f in ALICE.__struct_fields__}, "client": "app"})),
        Change.LOSES,
        ("readers", "denied_by_rule (stop)"),
    ),
    (
        "has to sign in again",
        BASE + READERS + "    mfa: {max_age: 10s}\n",
        allowed(),
        Change.LOSES,
        ("readers", "mfa_too_old (readers)"),
    ),
    (
        "a model that is gone",
        BASE.replace("iris:", "isis:") + READERS.replace("[iris]", "[isis]"),
        allowed(),
        Change.LOSES,
        ("readers", "unknown_model"),
    ),
    (
        "finer",
        BASE.replace("decimals: 2", "decimals: 3") + READERS,
        allowed(),
        Change.FINER,
        ("readers: 2 decimals", "readers: 3 decimals"),
    ),
    (
        "coarser",
        BASE.replace("decimals: 2", "label_only: true") + READERS,
        allowed(),
        Change.COARSER,
        ("readers: 2 decimals", "readers: label only"),
    ),
    (
        "neither",
        BASE.replace("decimals: 2", "decimals: 3, top_k: 1") + READERS,
        allowed(),
        Change.OTHER,
        ("readers: 2 decimals", "readers: 3 decimals, top 1"),
    ),
    ("no MFA", BASE + READERS + "    mfa: not_required\n", allowed(), Change.MFA, ("readers: MFA", "readers: NO MFA")),
    (
        "another budget",
        (BASE + READERS).replace("trial", "more"),
        allowed(),
        Change.BUDGET,
        ("readers: trial", "readers: more"),
    ),
    (
        "no detector",
        BASE + READERS,
        allowed(judged=Judged("d", "", "enforce", 0.5, 0.1, 1, 2, 0, "pass")),
        Change.DETECTOR,
        ("readers: detector d (enforce)", "readers: no detector"),
    ),
    (
        "over the budget",
        BASE.replace("60 requests", "1 request") + READERS,
        allowed(),
        Change.OVER,
        ("readers", "readers: budget trial (1 request/minute, 1000 rows/day)"),
    ),
    (
        "within the budget",
        BASE + READERS,
        allowed(effect="deny", reason="budget_exhausted"),
        Change.WITHIN,
        ("readers", "readers: budget trial (60 requests/minute, 1000 rows/day)"),
    ),
]


@pytest.mark.parametrize(("text", "event", "change", "words"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_what_becomes_of_a_request(text: str, event: Decision, change: Change, words: tuple[str, str]) -> None:
    assert changes(text, event, event)[change] == words


def test_what_a_record_does_not_hold_is_said() -> None:
    """An allow rule that asks for an address, a deny rule that asks for a claim, a client that was not recorded."""
    near = READERS.replace("models: [iris]", "models: [iris], networks: [10.0.0.0/8]")
    assert replayed(BASE + near, allowed()).untold == {"a record holds no address and no claims: readers": 1}
    stop = "  - id: stop\n    deny: {claims: {contractor: true}}\n"
    assert replayed(BASE + READERS + stop, allowed()).untold == {"a record holds no address and no claims: stop": 1}
    clients = READERS.replace("models: [iris]", "models: [iris], clients: [app]")
    assert replayed(BASE + clients, allowed()).untold == {"a record holds no address and no claims: readers": 1}


def test_a_doubt_that_changes_nothing_is_no_doubt() -> None:
    """Denied anyway; allowed by an earlier rule anyway; the hour of a record is known."""
    later = (
        READERS
        + "  - id: later\n    allow: {roles: [reader], actions: [infer], models: [iris], networks: [10.0.0.0/8]}\n"
    )
    text = (
        BASE
        + later.replace("budget: trial", "mfa: {max_age: 1h}\n    budget: trial", 1)
        + "    budget: trial\n    output: coarse\n"
    )
    assert replayed(text, allowed()).same == 1
    nobody = "  - id: stop\n    deny: {networks: [10.0.0.0/8]}\n"
    assert replayed(BASE + READERS + nobody, denied(actor=GUEST)).same == 1
    hours = READERS.replace("models: [iris]", "models: [iris], hours: [tue 22:00-23:00 UTC]")
    assert replayed(BASE + hours, allowed()).same == 1


def test_what_no_rule_decided_is_counted_apart() -> None:
    unknown = allowed(effect="deny", reason="token_expired", actor=None, obligations=None, rule=None)
    replay = replayed(BASE + READERS, unknown, denied(reason=Reason.UNKNOWN_MODEL, actor=None))
    assert replay.before_rules == {"token_expired": 1, "unknown_model": 1}


def test_a_record_that_says_everything_is_decided_as_the_request_was() -> None:
    """Recorded facts and the live principal give the same answer, for each role and model."""
    compiled = policy(BASE + GUESTS)
    for role in ("reader", "guest", "other"):
        for age in (60, 10**6):
            who = principal(role, auth_time=int(NOW) - age)
            target = Target(Action.INFER, "iris")
            live = authorize(compiled, who, target, compiled.upstreams["main"], "::1", now=NOW)
            again = decide_again(compiled, Recorded(who, target, "oip-v2", NOW))
            assert not isinstance(again, Untold)
            assert (live.rule, isinstance(live, Denial)) == (
                (again.id if isinstance(again, AllowRule) else again.rule),
                isinstance(again, Denial),
            )


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def journal(directory: Path, *streams: Sequence[Decision | Completion]) -> Path:
    """Write a journal of unsealed streams; record n of every stream has the time NOW + n seconds."""
    directory.mkdir()
    for number, events in enumerate(streams):
        chain = Chain(f"20231114T221320000Z-{number:012x}")
        lines = [chain.add(event, "0" * 32, int((NOW + n) * 1e9), n)[0] for n, event in enumerate(events)]
        (directory / f"{chain.stream}.000000.jsonl").write_bytes(b"".join(lines))
    return directory


def write(directory: Path, text: str) -> Path:
    directory.mkdir()
    (directory / "policy.yaml").write_text(text)
    return directory


def hip(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_groups_and_names_callers(tmp_path: Path) -> None:
    where = journal(tmp_path / "audit", [denied(actor=GUEST)] * 3, [allowed(), denied(actor=GUEST)])
    result = hip("replay", where, "--policy", write(tmp_path / "next", BASE + GUESTS))
    assert result.exit_code == 1
    assert result.output == (
        "gains access\n"
        "  4 requests of 1 caller: no_rule → readers: MFA, budget trial, 2 decimals\n"
        "            4  e1.bob\n"
        "the same: 1 request\n"
        "next: if that is meant, put it in the place of the policy that serves; it is read within a second\n"
    )
    told = json.loads(hip("replay", where, "--policy", tmp_path / "next", "--json").output)
    assert told["changes"][0]["callers"] == {"e1.bob": 4}


def test_exit_codes(tmp_path: Path) -> None:
    where = journal(tmp_path / "audit", [allowed()])
    good = write(tmp_path / "good", BASE + READERS)
    doubtful = write(
        tmp_path / "doubtful", BASE + READERS.replace("models: [iris]", "models: [iris], networks: [::/0]")
    )
    assert hip("replay", where, "--policy", good).exit_code == 0
    assert hip("replay", where, "--policy", doubtful).exit_code == 3
    for wrong in ((tmp_path / "gone", good), (good, good), (where, tmp_path / "gone")):
        assert hip("replay", wrong[0], "--policy", wrong[1]).exit_code == 2


def test_an_event_is_explained_from_the_journal(tmp_path: Path) -> None:
    where = journal(tmp_path / "audit", [denied(actor=GUEST, event="a" * 32), allowed()])
    good = write(tmp_path / "good", BASE + READERS)
    result = hip("explain", "--event", f"urn:hip:incident:{'a' * 32}", "--journal", where, "--policy", good)
    assert result.exit_code == 1
    assert "e1.bob of corp (a pseudonym)" in result.output
    assert "roles: reader; here: guest" in result.output
    assert "by the policy at hand: no_rule" in result.output
    assert "next: to let it in, give the nearest rule what it lacks, or write one, in a copy" in result.output
    assert f"hip diff {good} COPY" in result.output
    fine = hip("explain", "--event", "0" * 32, "--journal", where, "--policy", good)
    assert fine.exit_code == 0
    assert "budget trial: 1 requests, 3 rows, 0 tokens; then left: 59, 997" in fine.output
    missing = hip("explain", "--event", "b" * 32, "--journal", where, "--policy", good)
    assert missing.exit_code == 2
    assert "no decision has this id" in missing.output


REFUSED_LATER = [
    ("the budget", Reason.BUDGET_EXHAUSTED, TRIAL, "4 charge        refused: budget_exhausted\n"),
    ("the detector", Reason.ANOMALOUS_INPUT, TRIAL, "5 inspect       refused: anomalous_input\n"),
    (
        "its body",
        Reason.MALFORMED_BODY,
        None,
        "4 charge        refused before anything was charged: malformed_body\n",
    ),
]


@pytest.mark.parametrize(
    ("reason", "spent", "line"), [case[1:] for case in REFUSED_LATER], ids=[case[0] for case in REFUSED_LATER]
)
def test_what_a_rule_had_allowed_says_which_step_refused_it(
    reason: Reason, spent: Spent | None, line: str, tmp_path: Path
) -> None:
    where = journal(tmp_path / "audit", [allowed(effect="deny", reason=reason, spent=spent)])
    good = write(tmp_path / "good", BASE + READERS)
    result = hip("explain", "--event", "0" * 32, "--journal", where, "--policy", good)
    assert result.exit_code == 1
    assert line in result.output
    assert ("next: the caller waits" in result.output) is (reason is Reason.BUDGET_EXHAUSTED)


ENDED = [
    ("in order", {"upstream_status": 200}, "6 forward       upstream main: 200 in 3 ms; answer 200\n\n"),
    (
        "at a replica that was not there",
        {"upstream_replica": "127.0.0.1:9", "reason": "upstream_unreachable", "status": 502, "detail": "refused"},
        "main at 127.0.0.1:9: no answer in 3 ms; answer 502\n                ended: upstream_unreachable: refused\n",
    ),
    (
        "with its caller's revocation",
        {"upstream_status": 200, "reason": "token_revoked"},
        "answer 200\n                ended: token_revoked\n",
    ),
]


@pytest.mark.parametrize(("facts", "lines"), [case[1:] for case in ENDED], ids=[case[0] for case in ENDED])
def test_how_it_ended_is_told(facts: dict[str, object], lines: str, tmp_path: Path) -> None:
    """An incident's id leads to what the caller was not told."""
    facts = {"event": "0" * 32, "reason": "allowed", "status": 200, "upstream": "main", "upstream_ms": 3.1} | facts
    where = journal(tmp_path / "audit", [allowed(), Completion(**facts)])  # type: ignore[arg-type]
    good = write(tmp_path / "good", BASE + READERS)
    assert lines in hip("explain", "--event", "0" * 32, "--journal", where, "--policy", good).output


@pytest.mark.parametrize("command", [("diff", "gone", "gone"), ("explain", "--action", "infer", "--policy", "gone")])
def test_no_policy_there(command: tuple[str, ...]) -> None:
    result = hip(*command)
    assert result.exit_code == 2
    assert result.output == "gone: not a directory; name the one with the policy files, here or with --policy\n"
