"""Inclusion proofs in one pass, and bundles that prove themselves to a third party."""

import asyncio
import json
import random
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from stories import Place, place, serve
from typer.testing import CliRunner

from proxy.adapters.journal.reading import Kept, verify
from proxy.audit.bundle import Bundle, BundleError, read, write
from proxy.audit.bundle import verify as verify_bundle
from proxy.audit.merkle import Tree, included, inclusion_proof, root_of
from proxy.audit.proofs import BLOCK, Proofs
from proxy.audit.witnesses import Incident, Sample, StreamProofs
from proxy.cli.audit import audit_app

LEAVES = [sha256(str(number).encode()).digest() for number in range(3 * BLOCK + 17)]


@pytest.mark.parametrize("first", [0, 1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 552])
@pytest.mark.parametrize("sealed", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 3, len(LEAVES)])
def test_proofs_hold_wherever_the_stream_begins_and_the_head_stands(first: int, sealed: int) -> None:
    if sealed <= first:
        return
    chance, tree = random.Random(first * sealed), Tree()
    for leaf in LEAVES[:first]:
        tree.add(leaf)
    proofs, wanted = Proofs(first, tree.peaks), []
    for index in range(first, len(LEAVES)):
        proofs.add(LEAVES[index])
        if index in {first, BLOCK - 1, sealed - 1} or chance.random() < 0.01:
            proofs.want(index)
            wanted.append(index)
        if index + 1 == sealed:
            proofs.seal()
    for index in wanted:
        if index >= sealed:
            with pytest.raises(ValueError, match="no signed head"):
                proofs.proof(index)
            continue
        path = proofs.proof(index)
        assert included(LEAVES[index], index, sealed, path, root_of(LEAVES[:sealed]))
        if first == 0:
            assert path == inclusion_proof(LEAVES[:sealed], index)


def test_what_is_forgotten_costs_nothing() -> None:
    proofs = Proofs()
    for index, leaf in enumerate(LEAVES):
        proofs.add(leaf)
        proofs.want(index)
    for index in range(len(LEAVES)):
        proofs.forget(index)
    assert not proofs._kept


def test_only_the_newest_record_can_be_asked_for() -> None:
    proofs = Proofs()
    proofs.add(LEAVES[0])
    proofs.add(LEAVES[1])
    with pytest.raises(ValueError, match="newest"):
        proofs.want(0)


async def closed(tmp_path: Path, pairs: int = 20) -> tuple[Place, list[str]]:
    where = place(tmp_path)
    journal = await where.open()
    events = await serve(journal, pairs, refused=3)
    await journal.close()
    return where, events


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, list[str]]:
    return asyncio.run(closed(tmp_path_factory.mktemp("bundle")))


def bundle_of(where: Place, event: str) -> Bundle:
    finder = Incident(event)
    verify(where.directory, where.auditor, Kept(), witness=finder.stream)
    proven, unsealed = finder.proven()
    assert unsealed == 0
    return read(write(f"incident {event}", proven))


def test_a_bundle_proves_both_records_of_every_incident(history: tuple[Place, list[str]]) -> None:
    where, events = history
    for number, event in enumerate(events):
        bundle = bundle_of(where, event)
        assert len(bundle.records) == (2 if number < 20 else 1)
        assert verify_bundle(bundle, where.auditor) == []


def test_no_changed_byte_of_a_bundle_is_believed(history: tuple[Place, list[str]]) -> None:
    where, events = history
    bundle = bundle_of(where, events[4])
    chance = random.Random(4)
    (proven, *_) = bundle.records
    for field in ("line", "checkpoint", "certificate"):
        text = getattr(proven, field)
        for _ in range(100):
            at = chance.randrange(len(text))
            other = chance.choice([char for char in "01abX" if char != text[at]])
            changed = msgspec.structs.replace(proven, **{field: text[:at] + other + text[at + 1 :]})
            assert verify_bundle(msgspec.structs.replace(bundle, records=(changed,)), where.auditor), (field, at)
    for path in ((), proven.proof[:-1], proven.proof[::-1], (*proven.proof, "00" * 32), ("zz",)):
        changed = msgspec.structs.replace(proven, proof=path)
        assert verify_bundle(msgspec.structs.replace(bundle, records=(changed,)), where.auditor)


def test_a_bundle_of_another_key_is_not_believed(history: tuple[Place, list[str]], tmp_path: Path) -> None:
    where, events = history
    assert verify_bundle(bundle_of(where, events[0]), place(tmp_path).auditor)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"format":"x","about":"","records":[]}', b'{"format":"hip-audit-bundle/v1"}', b"\xff"]
)
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        read(data)


def test_the_commands_make_and_verify_a_bundle(history: tuple[Place, list[str]], tmp_path: Path) -> None:
    where, events = history
    file, key = tmp_path / "incident.json", str(where.auditor)
    run = CliRunner()
    made = run.invoke(
        audit_app,
        ["bundle", str(where.directory), "--incident", events[1], "-o", str(file), "--public-key", key],
    )
    assert made.exit_code == 0, made.output
    good = run.invoke(audit_app, ["verify", str(file), "--public-key", key])
    assert (good.exit_code, "INTACT: 2 records" in good.output) == (0, True)
    told = json.loads(run.invoke(audit_app, ["verify", str(file), "--public-key", key, "--json"]).output)
    assert (told["status"], told["records"]) == ("intact", 2)
    for option in ("--head", "--keep"):  # not passed over in silence: a bundle has no head to compare or to keep
        kept = run.invoke(audit_app, ["verify", str(file), "--public-key", key, option, str(file)])
        assert (kept.exit_code, "verified by itself" in kept.output) == (3, True)
    file.write_text(file.read_text().replace('\\"status\\":200', '\\"status\\":500'))
    assert run.invoke(audit_app, ["verify", str(file), "--public-key", key]).exit_code == 1
    file.write_text('{"format":"hip-audit-bundle/v1"}')
    assert run.invoke(audit_app, ["verify", str(file), "--public-key", key]).exit_code == 3
    missing = ["bundle", str(where.directory), "--incident", "f" * 32, "-o", str(file), "--public-key", key]
    assert run.invoke(audit_app, missing).exit_code == 1


def test_a_sample_is_repeatable_and_proven(history: tuple[Place, list[str]]) -> None:
    where, _ = history

    def draw(seed: str) -> tuple[str, ...]:
        sample = Sample(seed, 5)
        verify(where.directory, where.auditor, Kept(), witness=lambda: StreamProofs(sample.pick))
        proven = sample.proven()
        assert verify_bundle(read(write("sample", proven)), where.auditor) == []
        return tuple(one.line for one in proven)

    assert draw("a") == draw("a")
    assert len({draw(seed) for seed in "abcdefgh"}) > 1
    assert len(set(draw("a"))) == 5
