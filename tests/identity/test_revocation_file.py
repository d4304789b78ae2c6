"""The watched file and `hip revoke`: real files, two processes' worth of handles."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from issuing import NOW, b64
from typer.testing import CliRunner

from proxy.adapters.revocations import RevocationFile, append_revocation, read_revocations
from proxy.cli import app
from proxy.errors import ConfigError
from proxy.exchange import Principal
from proxy.identity.revocation import MAX_BYTES, Revocation
from proxy.reasons import Reason

ALICE = Principal("corp", "alice", frozenset(), frozenset(), None, None, NOW, NOW + 60, "t1", b"", "k")
LINE = b'{"at": 1, "issuer": "corp", "subject": "alice"}\n'
POLL = 0.005  # seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "revoked.jsonl"
    file.write_bytes(b"")
    return file


@pytest.fixture
async def watched(path: Path) -> AsyncIterator[RevocationFile]:
    """A file that is followed."""
    file, stop = RevocationFile(path, poll_seconds=POLL), asyncio.Event()
    following = asyncio.create_task(file.follow(stop))
    yield file
    stop.set()
    await following


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(POLL)


def revoked(file: RevocationFile) -> Reason | None:
    return file.revoked(ALICE, None)


async def test_a_line_counts_soon(path: Path, watched: RevocationFile) -> None:
    assert revoked(watched) is None
    append_revocation(path, Revocation(at=1, issuer="corp", subject="alice"))
    await until(lambda: revoked(watched) is Reason.TOKEN_REVOKED)
    path.write_bytes(b"")
    await until(lambda: revoked(watched) is None)


async def test_a_replaced_file_is_seen(path: Path, watched: RevocationFile) -> None:
    """An editor and a ConfigMap put another file under the name."""
    other = path.with_suffix(".new")
    other.write_bytes(LINE)
    other.rename(path)
    await until(lambda: revoked(watched) is Reason.TOKEN_REVOKED)


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(b"{"), lambda path: path.unlink()], ids=["bad", "gone"]
)
async def test_a_bad_file_keeps_the_last_list(
    path: Path, watched: RevocationFile, spoil: Callable[[Path], object]
) -> None:
    """Fail closed: what was revoked stays so, the operator sees why, and a good file counts again."""
    path.write_bytes(LINE)
    await until(lambda: revoked(watched))
    spoil(path)
    await until(lambda: watched.status().error)
    assert revoked(watched) is Reason.TOKEN_REVOKED
    assert watched.status().entries == 1
    path.write_bytes(LINE + LINE.replace(b"alice", b"bob"))
    await until(lambda: not watched.status().error)
    assert watched.status().entries == 2


@pytest.mark.parametrize("content", [None, b"{", "directory"], ids=["missing", "bad", "a directory"])
def test_nothing_starts_with_a_bad_file(tmp_path: Path, content: bytes | str | None) -> None:
    file = tmp_path / "revoked.jsonl"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        file.mkdir()
    with pytest.raises(ConfigError):
        RevocationFile(file)


def test_append_makes_the_file_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "revoked.jsonl"
    assert append_revocation(file, Revocation(at=1, issuer="corp", token_id="a"))
    assert file.stat().st_mode & 0o777 == 0o600


def test_append_ends_a_line_that_an_editor_left_open(path: Path) -> None:
    path.write_bytes(LINE.rstrip(b"\n"))
    assert append_revocation(path, Revocation(at=1, issuer="corp", token_id="a"))
    assert len(read_revocations(path)) == 2


def test_append_refuses_a_bad_list_and_leaves_it(path: Path) -> None:
    """A line behind a bad one would not count, and nobody would know."""
    path.write_bytes(b"oops\n")
    with pytest.raises(ConfigError, match="not one JSON object"):
        append_revocation(path, Revocation(at=1, issuer="corp", token_id="a"))
    assert path.read_bytes() == b"oops\n"


def test_no_pipe_holds_us(tmp_path: Path) -> None:
    """A named pipe is no file, and nobody waits for its other end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for use in (read_revocations, lambda path: append_revocation(path, Revocation(at=1, certificate=b64(bytes(32))))):
        with pytest.raises(ConfigError, match="not a regular file"):
            use(pipe)


def test_append_refuses_a_full_list(path: Path) -> None:
    path.write_bytes(b"\n" * MAX_BYTES)
    with pytest.raises(ConfigError, match="full"):
        append_revocation(path, Revocation(at=1, issuer="corp", token_id="a"))
    assert path.stat().st_size == MAX_BYTES


def test_append_follows_no_link(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigError):
        append_revocation(link, Revocation(at=1, issuer="corp", token_id="a"))


def test_appends_at_the_same_time_lose_nothing(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(
                lambda number: append_revocation(path, Revocation(at=1, issuer="corp", token_id=f"t{number % 16}")),
                range(32),
            )
        )
    assert sum(done) == len(read_revocations(path)) == 16


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────

POLICY = """\
version: v1
issuers:
  corp: {issuer: "https://idp.example.com", audience: a, jwks_file: k, algorithms: [ES256], roles_claim: roles}
upstreams:
  main: {url: "http://127.0.0.1:1", dialect: oip-v2}
models:
  iris: {upstream: main}
budgets:
  daily: [1000 requests/day]
outputs:
  coarse: {decimals: 2}
rules:
  - {id: r, allow: {roles: any, actions: [infer], models: any}, budget: daily, output: coarse}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)
    file = tmp_path / "hip.yaml"
    file.write_text("version: v1\nlisten: {plaintext: allowed}\nrevocations: revoked.jsonl\n")
    return file


def hip(config: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["revoke", "--config", str(config), *words])
    return result.exit_code, result.output


def test_revoke_says_what_it_did(config: Path) -> None:
    words = ("--issuer", "corp", "--subject", "alice", "--note", "left us")
    code, said = hip(config, *words)
    assert (code, said.splitlines()[0]) == (0, "revoked: tokens of subject alice of corp")
    code, said = hip(config, *words)
    assert (code, said.splitlines()[0]) == (0, "already revoked: tokens of subject alice of corp")
    code, said = hip(config, "--list")
    assert code == 0
    assert "tokens of subject alice of corp  (left us)" in said
    assert "1 revoked" in said


@pytest.mark.parametrize(
    ("words", "member"),
    [
        (("--issuer", "corp", "--jti", "t1"), {"issuer": "corp", "jti": "t1"}),
        (("--certificate", b64(bytes(32))), {"certificate": b64(bytes(32))}),
        (("--issuer", "mtls", "--subject", "scorer"), {"issuer": "mtls", "subject": "scorer"}),
        (("--issuer", "corp", "--issued-before", "1800000000"), {"issuer": "corp", "issued_before": NOW}),
        (("--issuer", "corp", "--issued-before", "2027-01-15T09:00:00+01:00"), {"issued_before": NOW}),
    ],
    ids=["jti", "certificate", "a workload", "UNIX seconds", "a time with its zone"],
)
def test_revoke_writes_what_was_said(config: Path, words: tuple[str, ...], member: dict[str, object]) -> None:
    code, said = hip(config, "--json", *words)
    assert code == 0
    told = json.loads(said)
    assert told["new"] is True
    assert member.items() <= told["revocation"].items()
    assert len(read_revocations(config.parent / "revoked.jsonl")) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "revoke nothing: none"),
        (("--jti", "t1"), "revoke nothing: jti"),
        (("--issuer", "corp"), "revoke nothing: issuer"),
        (("--issuer", "crop", "--jti", "t1"), "did you mean `corp`?"),
        (("--certificate", "ab:cd"), "`hip certs show` prints it"),
        (("--issuer", "corp", "--issued-before", "yesterday"), "write `now`"),
        (("--issuer", "corp", "--issued-before", "2026-11-21T10:00:00"), "write `now`"),
        (("--list", "--jti", "t1"), "--list stands alone"),
    ],
)
def test_revoke_refuses_wrong_use(config: Path, words: tuple[str, ...], said: str) -> None:
    code, output = hip(config, *words)
    assert code == 2
    assert said in output
    assert not (config.parent / "revoked.jsonl").exists()


def test_revoke_everything_until_now(config: Path) -> None:
    """`iat` has whole seconds: a token of this very second is meant too."""
    before = int(time.time())
    assert hip(config, "--issuer", "corp", "--issued-before", "now")[0] == 0
    (revocation,) = read_revocations(config.parent / "revoked.jsonl")
    assert revocation.issued_before is not None
    assert revocation.issued_before > before
    assert str(revocation) == f"every token of corp issued before {revocation.issued_before}"


def test_revoke_shows_the_list_to_programs(config: Path) -> None:
    hip(config, "--certificate", b64(bytes(32)))
    code, said = hip(config, "--list", "--json")
    assert code == 0
    (line,) = json.loads(said)
    assert line.keys() == {"list", "at", "certificate"}
    assert "client certificate AAAA" in hip(config, "--list")[1]


def test_revoke_without_a_configuration(tmp_path: Path) -> None:
    code, said = hip(tmp_path / "none.yaml", "--list")
    assert code == 2
    assert "--config FILE" in said


def test_revoke_works_while_the_policy_is_broken(config: Path) -> None:
    """An emergency does not wait for a colleague's YAML."""
    (config.parent / "policies" / "p.yaml").write_text("version: v2\n")
    code, said = hip(config, "--issuer", "corp", "--jti", "t1")
    assert code == 0
    assert "was not checked" in said


def test_revoke_writes_the_file_whatever_is_wrong_with_the_store(config: Path) -> None:
    with config.open("a") as file:
        file.write('state: {url: "rediss://127.0.0.1:1/0", ca_file: missing.pem}\n')
    code, said = hip(config, "--issuer", "corp", "--subject", "alice")
    assert code == 2
    assert "shared list: NOT revoked there" in said
    assert "missing.pem" in said
    assert len(read_revocations(config.parent / "revoked.jsonl")) == 1


def test_revoke_without_a_list_in_the_configuration(config: Path) -> None:
    config.write_text("version: v1\nlisten: {plaintext: allowed}\n")
    code, said = hip(config, "--list")
    assert code == 2
    assert "add the line `revocations: revoked.jsonl`" in said


# ── ends, places, names ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_line_ends_by_itself_though_nobody_touches_the_file(path: Path) -> None:
    path.write_bytes(LINE.replace(b"}", b', "until": 100}'))
    time = [99.0]
    file, stop = RevocationFile(path, poll_seconds=POLL, now=lambda: time[0]), asyncio.Event()
    following = asyncio.create_task(file.follow(stop))
    assert revoked(file) is Reason.TOKEN_REVOKED
    time[0] = 100.0
    await until(lambda: revoked(file) is None)
    assert file.status().entries == 0
    stop.set()
    await following


def token(**claims: object) -> str:
    part = b64(json.dumps({"iss": "https://idp.example.com", "jti": "t7", "exp": 4_000_000_000, **claims}).encode())
    return f"{b64(json.dumps({'alg': 'ES256', 'kid': 'k'}).encode())}.{part}.{b64(bytes(64))}"


def test_revoke_a_token_by_itself(config: Path) -> None:
    file = config.parent / "token"
    file.write_text(f"Bearer {token()}\n")
    assert hip(config, "--token", str(file))[0] == 0
    (line,) = read_revocations(config.parent / "revoked.jsonl")
    assert (line.issuer, line.token_id) == ("corp", "t7")
    assert line.until is not None
    assert line.until > 4_000_000_000


def test_a_token_stays_revoked_for_a_day_whatever_it_says(config: Path) -> None:
    """Nobody has verified its `exp`."""
    file = config.parent / "token"
    file.write_text(token(exp=1))
    assert hip(config, "--token", str(file))[0] == 0
    (line,) = read_revocations(config.parent / "revoked.jsonl")
    assert line.until is not None
    assert line.until > time.time() + 86_000


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("x", (), "no token that we would accept"),
        (token(jti=1), (), "no token that we would accept"),
        (token(iss="https://other.example.com"), (), "which is no issuer"),
        (token(), ("--jti", "t7"), "--token stands in the place"),
        (token(), ("--until", "2001-01-01T00:00:00Z"), "that is over"),
    ],
    ids=["nothing", "no jti", "another issuer", "two ways", "over"],
)
def test_revoke_refuses_a_token(config: Path, content: str, words: tuple[str, ...], said: str) -> None:
    file = config.parent / "token"
    file.write_text(content)
    code, output = hip(config, "--token", str(file), *words)
    assert code == 2
    assert said in output
    assert not (config.parent / "revoked.jsonl").exists()


def test_undo_leaves_the_file_to_its_owner(config: Path) -> None:
    alice = ("--issuer", "corp", "--subject", "alice")
    assert hip(config, *alice, "--undo") == (1, "not on a list: tokens of subject alice of corp\n")
    hip(config, *alice)
    code, said = hip(config, *alice, "--undo")
    assert code == 1
    assert "still has 1 such lines; delete them there" in said


def test_the_list_warns_of_a_name_that_no_issuer_has(config: Path) -> None:
    (config.parent / "revoked.jsonl").write_bytes(LINE.replace(b"corp", b"crop"))
    code, said = hip(config, "--list")
    assert code == 0
    assert "warning: no issuer of the policy is called `crop`, did you mean `corp`?" in said
