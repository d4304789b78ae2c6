"""The verifier under attack: every manipulation is seen with the right exit code, no honest history raises an alarm."""

import asyncio
import json
import random
import re
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stories import QUICK, Place, crash, place, serve
from typer.testing import CliRunner

from proxy.adapters.journal.disk import ANCHOR_FILE
from proxy.adapters.journal.reading import Kept, Verification, verify
from proxy.audit.anchor import line_hash
from proxy.audit.certificate import KEY_NAME
from proxy.audit.chain import Chain, split
from proxy.audit.findings import Status
from proxy.audit.merkle import leaf_hash
from proxy.audit.note import Signer
from proxy.audit.verify import StreamCheck
from proxy.cli.audit import audit_app
from proxy.record import Stop

Files = dict[str, bytes]


@dataclass(frozen=True)
class History:
    """A closed, honest journal as bytes, and what an auditor kept of it half way."""

    place: Place
    files: Files
    half: Files
    kept: Kept


def read_files(directory: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.jsonl"))}


def write_files(directory: Path, files: Files) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    for name, data in files.items():
        (directory / name).write_bytes(data)


async def make_history(tmp_path: Path) -> History:
    """Return a history with a crash, a torn tail, rotations and an orderly end."""
    where = place(tmp_path)
    journal = await where.open()
    await serve(journal, 9, refused=2)
    await crash(journal, torn=b'{"v":1,"stream":"')
    half = await where.open()
    await serve(half, 6)
    last = (where.directory / ANCHOR_FILE).read_bytes().splitlines()
    kept = Kept(anchors={len(last) - 1: line_hash(last[-1])})
    halfway = read_files(where.directory)
    await serve(half, 6)
    await half.close()
    return History(where, read_files(where.directory), halfway, kept)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return asyncio.run(make_history(tmp_path_factory.mktemp("history")))


def judge(history: History, files: Files, tmp_path: Path, kept: Kept | None = None) -> Verification:
    directory = tmp_path / "judged"
    write_files(directory, files)
    return verify(directory, history.place.auditor, kept or Kept())


def journal_files(files: Files) -> list[str]:
    return [name for name in files if name != ANCHOR_FILE]


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


# ── honest histories ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_honest_history_is_intact_with_and_without_a_kept_head(history: History, tmp_path: Path) -> None:
    assert len(journal_files(history.files)) > 4
    for kept in (None, history.kept):
        found = judge(history, history.files, tmp_path, kept)
        assert (found.status, found.faults) == (Status.INTACT, ())
        assert [(report.ending, report.unsealed) for report in found.streams] == [("recovered", 0), ("stopped", 0)]
        assert found.streams[0].torn_bytes == 17


def test_a_journal_in_use_is_incomplete_never_tampered(history: History, tmp_path: Path) -> None:
    found = judge(history, history.half, tmp_path, history.kept)
    assert found.status is Status.INCOMPLETE


@pytest.mark.parametrize("seed", range(10))
async def test_honest_histories_raise_no_alarm(seed: int, tmp_path: Path) -> None:
    await honest(random.Random(seed), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 1_010))
async def test_a_thousand_honest_histories_raise_no_alarm(seed: int, tmp_path: Path) -> None:
    await honest(random.Random(seed), tmp_path)


async def honest(chance: random.Random, tmp_path: Path) -> None:
    """Crashes at any record, torn anywhere, several workers, rotations: 2 while something is open, 0 in the end."""
    where = place(tmp_path)
    running = [await where.open()]
    for _ in range(chance.randint(2, 6)):
        for journal in running:
            await serve(journal, chance.randint(0, 12), refused=chance.randint(0, 3))
        match chance.choice(["crash", "close", "join"]):
            case "crash":
                torn = await one_line(where) if chance.random() < 0.7 else b""
                await crash(running.pop(), torn[: chance.randint(0, len(torn))])
                running.append(await where.open())
            case "close":
                await running.pop().close()
                running.append(await where.open())
            case _:
                running.append(await where.open())
        found = verify(where.directory, where.auditor, Kept())
        assert found.status is Status.INCOMPLETE, found
    for journal in running:
        await journal.close()
    found = verify(where.directory, where.auditor, Kept())
    assert found.status is Status.INTACT, found


async def one_line(where: Place) -> bytes:
    """Return a line such as a crash might cut."""
    path = next(where.directory.glob("*.000000.jsonl"))
    return lines_of(path.read_bytes())[0][:-1]


async def test_memory_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    """Ten times as many records and pairs: the verifier holds no more of them at once; only file names add up."""
    where, peaks = place(tmp_path), list[int]()
    for pairs in (100, 1_000):
        journal = await where.open(limits=replace(QUICK, segment_bytes=1 << 26))
        await asyncio.gather(*[serve(journal, pairs // 10) for _ in range(10)])
        await journal.close()
        for hash_only in (True, False):
            tracemalloc.start()
            found = verify(where.directory, where.auditor, Kept(), hash_only=hash_only)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert found.status is Status.INTACT
    assert peaks[2] < peaks[0] * 1.5, peaks
    assert peaks[3] < peaks[1] * 1.5, peaks


# ── manipulations ───────────────────────────────────────────────────────────────────────────────────────────────────


def flip(files: Files, chance: random.Random) -> None:
    """One bit of one byte of any record."""
    name = chance.choice(journal_files(files))
    data = bytearray(files[name])
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    files[name] = bytes(data)


def flip_anchor(files: Files, chance: random.Random) -> None:
    """One bit of the anchor log, its last newline apart: without that it is a crash's work."""
    data = bytearray(files[ANCHOR_FILE])
    data[chance.randrange(len(data) - 1)] ^= 1 << chance.randrange(8)
    files[ANCHOR_FILE] = bytes(data)


def delete(files: Files, chance: random.Random) -> None:
    name = chance.choice(list(files))
    lines = lines_of(files[name])
    at = len(lines) - 1 if name == ANCHOR_FILE else len(lines)  # the anchor log's last line: `cut_anchors`
    del lines[chance.randrange(at)]
    files[name] = b"".join(lines)


def duplicate(files: Files, chance: random.Random) -> None:
    name = chance.choice(list(files))
    lines = lines_of(files[name])
    at = chance.randrange(len(lines))
    lines.insert(at, lines[at])
    files[name] = b"".join(lines)


def reorder(files: Files, chance: random.Random) -> None:
    name = chance.choice([name for name in files if len(lines_of(files[name])) > 1])
    lines = lines_of(files[name])
    at, to = chance.sample(range(len(lines)), 2)
    lines[at], lines[to] = lines[to], lines[at]
    files[name] = b"".join(lines)


def truncate(files: Files, chance: random.Random) -> None:
    """Cut any file anywhere; a record file's later segments go with it, as a careful attacker would do it."""
    name = chance.choice(journal_files(files))
    stream = name.split(".")[0]
    files[name] = files[name][: chance.randrange(len(files[name]))]
    for later in [other for other in files if other.startswith(stream) and other > name]:
        del files[later]


def splice(files: Files, chance: random.Random) -> None:
    """A genuine line of another stream or segment in the place of this one."""
    here, there = chance.sample(journal_files(files), 2)
    mine, other = lines_of(files[here]), lines_of(files[there])
    mine[chance.randrange(len(mine))] = chance.choice([line for line in other if line.endswith(b"\n")])
    files[here] = b"".join(mine)


def swap_files(files: Files, chance: random.Random) -> None:
    here, there = chance.sample(journal_files(files), 2)
    files[here], files[there] = files[there], files[here]


def remove_file(files: Files, chance: random.Random) -> None:
    del files[chance.choice(list(files))]


def remove_stream(files: Files, chance: random.Random) -> None:
    stream = chance.choice(journal_files(files)).split(".")[0]
    for name in [name for name in files if name.startswith(stream)]:
        del files[name]


def forge(files: Files, chance: random.Random) -> None:
    """Change a record and recompute every hash after it: only the signatures cannot be made again."""
    first = chance.choice([name for name in journal_files(files) if name.endswith(".000000.jsonl")])
    stream = first.split(".")[0]
    names = [name for name in files if name.startswith(stream)]
    chain = Chain(stream)
    lines = [line for name in names for line in lines_of(files[name]) if line.endswith(b"\n")]
    victim = chance.randrange(3, len(lines) - 1)
    written = b""
    for at, line in enumerate(lines):
        envelope, body = split(line[:-1])
        if at == victim:
            body = b'{"type":"stop","requests":%d}' % chance.randrange(10**6)
        head = envelope.head().replace(b'"prev":"%s"' % envelope.prev.encode(), b'"prev":"%s"' % chain.prev.encode())
        rewritten = head + b"," + body[1:]
        chain.add(Stop(requests=0), "", 0, 0)  # only to count
        chain.prev = leaf_hash(rewritten).hex()
        written += rewritten + b"\n"
    for name in names[1:]:
        del files[name]
    files[first] = written


def swap_notes(files: Files, chance: random.Random) -> None:
    """A genuine certificate or checkpoint of another file, stream or moment in the place of this one."""
    kind = chance.choice([b"certificate", b"checkpoint", b"note"])
    pattern = re.compile(rb'"%s":"((?:[^"\\]|\\.)*)"' % kind)
    places = [(name, found.span(1), found[1]) for name, data in files.items() for found in pattern.finditer(data)]
    name, (start, end), mine = chance.choice(places)
    other = chance.choice([note for _, _, note in places if note != mine])
    files[name] = files[name][:start] + other + files[name][end:]


def stranger_key(files: Files, chance: random.Random) -> None:
    """A file's certificate, word for word, signed with a key that the auditor does not know."""
    name = chance.choice(journal_files(files))
    signer = Signer(KEY_NAME, Ed25519PrivateKey.from_private_bytes(chance.randbytes(32)))
    first, *rest = lines_of(files[name])
    old = re.search(rb'"certificate":"((?:[^"\\]|\\.)*)"', first)
    assert old is not None
    text = json.loads(b'"' + old[1] + b'"').partition("\n\n")[0] + "\n"
    files[name] = first.replace(old[1], json.dumps(signer.note(text), ensure_ascii=False)[1:-1].encode())
    files[name] += b"".join(rest)


def roll_back(files: Files, chance: random.Random) -> None:
    """Journal and anchor log together, to what they were at an earlier anchor: a state that once was honest."""
    anchors = lines_of(files[ANCHOR_FILE])
    anchors = anchors[: chance.randrange(1, len(anchors))]
    sizes: dict[str, int] = {}
    for anchor in map(json.loads, anchors):
        sizes[anchor["stream"]] = anchor["size"]
        if "found" in anchor:  # a crash: its last, unfinished line is as genuine as the others
            sizes[anchor["found"]["stream"]] = sys.maxsize
    files[ANCHOR_FILE] = b"".join(anchors)
    for name in journal_files(files):
        stream = name.split(".")[0]
        size, lines = sizes.get(stream, 0), lines_of(files[name])
        whole = [line for line in lines if line.endswith(b"\n") and split(line[:-1])[0].seq < size]
        kept = lines if size == sys.maxsize else whole
        files[name] = b"".join(kept)
        if not kept:
            del files[name]


MANIPULATIONS: list[Callable[[Files, random.Random], None]] = [
    flip,
    flip_anchor,
    delete,
    duplicate,
    reorder,
    truncate,
    splice,
    swap_files,
    remove_file,
    remove_stream,
    forge,
    swap_notes,
    stranger_key,
]


def attack(history: History, manipulate: Callable[[Files, random.Random], None], seed: int, tmp_path: Path) -> None:
    files = dict(history.files)
    manipulate(files, random.Random(seed))
    if files == history.files:  # two equal lines were exchanged
        return
    found = judge(history, files, tmp_path)
    assert found.status is Status.TAMPERED, (manipulate.__name__, seed, found)
    quick = verify(tmp_path / "judged", history.place.auditor, Kept(), hash_only=True)
    assert quick.status is Status.TAMPERED, (manipulate.__name__, seed, quick)


@pytest.mark.parametrize("manipulate", MANIPULATIONS)
def test_every_manipulation_is_seen(
    history: History, manipulate: Callable[[Files, random.Random], None], tmp_path: Path
) -> None:
    for seed in range(100):
        attack(history, manipulate, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("manipulate", MANIPULATIONS)
@pytest.mark.parametrize("batch", range(10))
def test_a_hundred_thousand_manipulations_are_seen(
    history: History, manipulate: Callable[[Files, random.Random], None], batch: int, tmp_path: Path
) -> None:
    for seed in range(100 + batch * 1_000, 100 + (batch + 1) * 1_000):
        attack(history, manipulate, seed, tmp_path)


def test_a_cut_anchor_log_is_never_intact(history: History, tmp_path: Path) -> None:
    """Its last lines can be lost in a crash, so the answer may be 2; it is 1 as soon as a serving stream is unknown."""
    lines = lines_of(history.files[ANCHOR_FILE])
    for keep in range(len(lines)):
        found = judge(history, {**history.files, ANCHOR_FILE: b"".join(lines[:keep])}, tmp_path)
        assert found.status in {Status.TAMPERED, Status.INCOMPLETE}
        if b'"kind":"start"' in b"".join(lines[keep:]):
            assert found.status is Status.TAMPERED
    torn = judge(history, {**history.files, ANCHOR_FILE: history.files[ANCHOR_FILE][:-1]}, tmp_path)
    assert torn.status is Status.INCOMPLETE


def test_a_rollback_of_everything_shows_only_against_a_head_kept_elsewhere(history: History, tmp_path: Path) -> None:
    """The honest limit, stated as a test."""
    last = lines_of(history.files[ANCHOR_FILE])
    kept = Kept(anchors={len(last) - 1: line_hash(last[-1][:-1])})
    assert judge(history, history.half, tmp_path).status is Status.INCOMPLETE
    assert judge(history, history.half, tmp_path, kept).status is Status.TAMPERED


def test_a_rollback_to_any_anchor_shows_against_the_last_head(history: History, tmp_path: Path) -> None:
    last = lines_of(history.files[ANCHOR_FILE])
    kept = Kept(anchors={len(last) - 1: line_hash(last[-1][:-1])})
    for seed in range(100):
        files = dict(history.files)
        roll_back(files, random.Random(seed))
        assert judge(history, files, tmp_path).status is Status.INCOMPLETE, seed  # consistent in itself
        assert judge(history, files, tmp_path, kept).status is Status.TAMPERED, seed


def test_a_kept_checkpoint_shows_a_cut_and_a_change(history: History, tmp_path: Path) -> None:
    report = judge(history, history.files, tmp_path).streams[1]
    size = int(report.head.split("\n")[1])
    for root, there, expected in (
        (bytes(32), size, Status.TAMPERED),
        (bytes(32), size + 1_000, Status.TAMPERED),
    ):
        kept = Kept(checkpoints={report.stream: {there: root}})
        assert judge(history, history.files, tmp_path, kept).status is expected
    unknown = Kept(checkpoints={"20000101T000000Z-000000000000": {1: bytes(32)}})
    assert judge(history, history.files, tmp_path, unknown).status is Status.TAMPERED


async def test_a_whole_journal_of_another_key_is_not_accepted(history: History, tmp_path: Path) -> None:
    stranger = place(tmp_path / "stranger")
    journal = await stranger.open()
    await serve(journal, 2)
    await journal.close()
    found = judge(history, read_files(stranger.directory), tmp_path)
    assert found.status is Status.TAMPERED
    joined = {**history.files, **{n: d for n, d in read_files(stranger.directory).items() if n != ANCHOR_FILE}}
    assert judge(history, joined, tmp_path).status is Status.TAMPERED


async def test_a_genuine_stream_of_another_directory_is_not_accepted(history: History, tmp_path: Path) -> None:
    """Same long-term key, other place: the anchor log does not know it."""
    elsewhere = Place(tmp_path / "elsewhere", history.place.keys)
    journal = await elsewhere.open()
    await serve(journal, 2)
    await journal.close()
    joined = {**history.files, **{n: d for n, d in read_files(elsewhere.directory).items() if n != ANCHOR_FILE}}
    assert judge(history, joined, tmp_path).status is Status.TAMPERED


def test_every_file_alone_can_be_judged(history: History, tmp_path: Path) -> None:
    """A file taken out of its stream begins with all that is needed; only the last one shows an end."""
    write_files(tmp_path / "files", history.files)
    for name in journal_files(history.files):
        found = verify(tmp_path / "files" / name, history.place.auditor, Kept())
        assert found.status in {Status.INTACT, Status.INCOMPLETE}, found
        assert not found.streams[0].sealed < found.streams[0].first_seq


def test_a_changed_file_alone_is_seen(history: History, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    chance = random.Random(1)
    closed = journal_files(history.files)[-1]
    for _ in range(200):
        files = {closed: history.files[closed]}
        flip(files, chance)
        path.write_bytes(files[closed])
        assert verify(path, history.place.auditor, Kept()).status is not Status.INTACT


def test_an_unknown_schema_is_not_called_tampering(tmp_path: Path) -> None:
    """A newer version's record: the chain holds, the meaning is not known."""
    signer = Signer(KEY_NAME, Ed25519PrivateKey.generate())
    check = StreamCheck("s", signer.verifier)
    chain = Chain("s")
    line, _ = chain.add(Stop(requests=1), "0", 1, 1)
    check.feed(line.replace(b'"stop"', b'"haps"'))
    assert check.finish().status is Status.UNKNOWN


def test_nothing_to_verify_is_not_intact(history: History, tmp_path: Path) -> None:
    assert judge(history, {}, tmp_path).status is Status.UNKNOWN
    assert judge(history, {ANCHOR_FILE: b""}, tmp_path).status is Status.UNKNOWN


def test_that_everything_was_removed_shows_against_a_head_kept_elsewhere(history: History, tmp_path: Path) -> None:
    assert judge(history, {}, tmp_path, history.kept).status is Status.TAMPERED
    (stream, *_) = {name.split(".")[0] for name in journal_files(history.files)}
    assert judge(history, {}, tmp_path, Kept(checkpoints={stream: {1: bytes(32)}})).status is Status.TAMPERED


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(audit_app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_the_command_says_what_is_sealed_and_which_head_to_keep(history: History, tmp_path: Path) -> None:
    write_files(tmp_path / "audit", history.files)
    key = str(history.place.auditor)
    code, text = run("verify", str(tmp_path / "audit"), "--public-key", key)
    assert code == 0
    for words in ("INTACT", "records sealed, 0 unsealed", "Keep this head", "Not proven", "found by its successor"):
        assert words in text
    head = tmp_path / "head.txt"
    head.write_text(next(line for line in text.splitlines() if line.startswith('{"v":1,"n"')) + "\n")
    assert run("verify", str(tmp_path / "audit"), "--public-key", key, "--head", str(head))[0] == 0
    write_files(tmp_path / "audit", history.half)
    code, text = run("verify", str(tmp_path / "audit"), "--public-key", key, "--head", str(head))
    assert code == 1
    assert "rolled back" in text


def test_the_blocks_of_the_command_fit_80_columns(history: History, tmp_path: Path) -> None:
    write_files(tmp_path / "audit", history.files)
    text = CliRunner().invoke(
        audit_app,
        ["verify", str(tmp_path / "audit"), "--public-key", str(history.place.auditor)],
        env={"COLUMNS": "80"},
    )
    blocks = text.output.partition("Keep this head")[0].splitlines()
    assert max(len(line) for line in blocks) <= 80, blocks


def test_hash_only_agrees_and_says_what_it_did_not_count(history: History, tmp_path: Path) -> None:
    write_files(tmp_path / "audit", history.files)
    full = verify(tmp_path / "audit", history.place.auditor, Kept())
    quick = verify(tmp_path / "audit", history.place.auditor, Kept(), hash_only=True)
    assert quick.status is full.status is Status.INTACT
    assert [report.sealed for report in quick.streams] == [report.sealed for report in full.streams]
    assert sum(report.unread for report in quick.streams) == 2 * 21 + 2
    code, text = run("verify", str(tmp_path / "audit"), "--public-key", str(history.place.auditor), "--hash-only")
    assert (code, "read by hash only" in text) == (0, True)


def test_the_command_for_programs(history: History, tmp_path: Path) -> None:
    write_files(tmp_path / "audit", history.files)
    code, text = run("verify", str(tmp_path / "audit"), "--public-key", str(history.place.auditor), "--json")
    told = json.loads(text)
    assert (code, told["status"], told["exit_code"]) == (0, "intact", 0)
    assert told["streams"][0]["unsealed"] == 0


def test_the_command_takes_a_checkpoint_as_head(history: History, tmp_path: Path) -> None:
    write_files(tmp_path / "audit", history.files)
    key, head = str(history.place.auditor), tmp_path / "head.txt"
    notes = [report.head for report in verify(tmp_path / "audit", history.place.auditor, Kept()).streams]
    head.write_text("\n".join(notes))
    assert run("verify", str(tmp_path / "audit"), "--public-key", key, "--head", str(head))[0] == 0
    write_files(tmp_path / "audit", history.half)
    assert run("verify", str(tmp_path / "audit"), "--public-key", key, "--head", str(head))[0] == 1


@pytest.mark.parametrize("arguments", [[], ["--public-key", "nonsense"], ["--public-key", "KEY", "--head", "HEAD"]])
def test_without_a_key_or_with_a_worthless_head_the_command_cannot_tell(
    history: History, tmp_path: Path, arguments: list[str]
) -> None:
    write_files(tmp_path / "audit", history.files)
    (tmp_path / "head").write_text("nothing\n")
    known = {"KEY": str(history.place.auditor), "HEAD": str(tmp_path / "head")}
    code, _ = run("verify", str(tmp_path / "audit"), *[known.get(word, word) for word in arguments])
    assert code == 3


def test_the_head_is_kept_in_a_file_for_next_time(history: History, tmp_path: Path) -> None:
    key, kept = ("--public-key", str(history.place.auditor)), tmp_path / "kept.txt"
    given = ("--head", str(kept), "--keep", str(kept))
    write_files(tmp_path / "audit", history.half)
    assert run("verify", str(tmp_path / "audit"), *key, "--keep", str(kept))[0] == 2
    write_files(tmp_path / "audit", history.files)
    code, text = run("verify", str(tmp_path / "audit"), *key, *given)
    assert (code, "Keep this head" in text) == (0, False)
    assert len(kept.read_text().splitlines()) == 2
    kept.write_text(kept.read_text().rstrip("\n"))
    assert run("verify", str(tmp_path / "audit"), *key, *given)[0] == 0
    assert len(kept.read_text().splitlines()) == 3  # each on a line of its own
    write_files(tmp_path / "audit", history.half)
    code, text = run("verify", str(tmp_path / "audit"), *key, *given)
    assert (code, "take no head from it" in text) == (1, True)
    assert len(kept.read_text().splitlines()) == 3  # what was rolled back gives no head
    one = tmp_path / "one.txt"
    name = journal_files(history.half)[-1]
    assert run("verify", str(tmp_path / "audit" / name), *key, "--keep", str(one), "--hash-only")[0] == 2
    write_files(tmp_path / "audit", history.files)
    assert run("verify", str(tmp_path / "audit"), *key, "--head", str(one))[0] == 0


def test_a_tampered_journal_says_what_was_not_judged_and_gives_no_head(history: History, tmp_path: Path) -> None:
    files = dict(history.files)
    name = next(name for name in journal_files(files) if b'"no_rule"' in files[name])
    files[name] = files[name].replace(b'"no_rule"', b'"allowed"', 1)
    write_files(tmp_path / "audit", files)
    code, text = run("verify", str(tmp_path / "audit"), "--public-key", str(history.place.auditor))
    assert (code, "was not judged" in text, "Keep this head" in text) == (1, True, False)
    told = json.loads(run("verify", str(tmp_path / "audit"), "--public-key", str(history.place.auditor), "--json")[1])
    assert told["head"] == ""


def test_the_wrong_key_is_asked_after(history: History, tmp_path: Path) -> None:
    write_files(tmp_path / "audit", history.files)
    stranger = place(tmp_path / "stranger")
    code, text = run("verify", str(tmp_path / "audit"), "--public-key", str(stranger.auditor))
    assert (code, "is that this journal's audit.pub?" in text) == (1, True)


@pytest.mark.parametrize("verb", ["verify", "report"])
@pytest.mark.parametrize(
    "words", [["missing"], ["audit", "--haed", "x"], [], ["audit", "--keep", "missing/x", "-o", "missing/x"]]
)
def test_a_wrong_word_is_no_open_end(history: History, tmp_path: Path, verb: str, words: list[str]) -> None:
    """Exit code 2 of these two means INCOMPLETE, which a script may take for good enough."""
    write_files(tmp_path / "audit", history.files)
    options = {"verify": "-o", "report": "--keep"}[verb]  # what the other verb takes
    if options in words:
        at = words.index(options)
        words = words[:at] + words[at + 2 :]
    words = [str(tmp_path / word) if word[0] in "am" else word for word in words]
    assert run(verb, *words, "--public-key", str(history.place.auditor))[0] == 3


def test_what_cannot_be_read_is_not_called_tampering(history: History, tmp_path: Path) -> None:
    write_files(tmp_path / "audit", history.files)
    first = tmp_path / "audit" / journal_files(history.files)[0]
    first.unlink()
    first.mkdir()  # for root, too, a file that cannot be read
    code, text = run("verify", str(tmp_path / "audit"), "--public-key", str(history.place.auditor))
    assert (code, "Is a directory" in text) == (3, True)


def test_show_prints_one_incident(history: History, tmp_path: Path) -> None:
    write_files(tmp_path / "audit", history.files)
    line = next(line for line in lines_of(history.files[journal_files(history.files)[0]]) if b'"decision"' in line)
    event = json.loads(line)["event"]
    code, text = run("show", str(tmp_path / "audit"), "--incident", f"urn:hip:incident:{event}")
    assert code == 0
    assert text.count("  decision") == text.count("  completion") == 1
    assert run("show", str(tmp_path / "audit"), "--incident", event[:8]) == (code, text)
    assert run("show", str(tmp_path / "audit"), "--incident", event[:7])[0] == 1
    assert run("show", str(tmp_path / "audit"), "--incident", "f" * 32)[0] == 1
