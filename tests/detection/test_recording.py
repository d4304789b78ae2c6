"""The files of a recorded sample, without a proxy around them: what becomes of rows when a file or the journal goes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from proxy.adapters.samples import prepare, read_files
from proxy.app.recording import Recording
from proxy.audit.sealing import Opener
from proxy.errors import DependencyFault
from proxy.exchange import Images, Passed, Texts
from proxy.policy.model import Recorded
from proxy.reasons import Reason
from proxy.record import InputsRecorded

KEY = X25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
DAY = 86_400.0


class Trail:
    def __init__(self) -> None:
        self.events: list[InputsRecorded] = []
        self.writable = True

    async def append(self, event: InputsRecorded) -> None:
        if not self.writable:
            raise DependencyFault(Reason.AUDIT_UNWRITABLE)
        self.events.append(event)


class House:
    """A recording with a clock and a journal of its own."""

    def __init__(self, directory: Path) -> None:
        prepare(directory)
        self.directory, self.trail, self.time = directory, Trail(), 1_700_000_000.0
        model = SimpleNamespace(recorded=Recorded(PUBLIC, "0123456789abcdef", 3, 30 * DAY))
        policy = SimpleNamespace(models={"m": model})
        clock = SimpleNamespace(now=lambda: self.time, monotonic=lambda: self.time)
        self.recording = Recording(directory, 1 << 30, lambda: policy, self.trail, clock)  # type: ignore[arg-type]
        self.recording.policy_changed()

    def ask(self, given: object, caller: str = "alice", body: bytes = b"") -> None:
        story = SimpleNamespace(
            target=SimpleNamespace(model="m"),
            status=200,
            reason=Reason.ALLOWED,
            verdict=Passed(),
            query=SimpleNamespace(features=given, body=body, behind=b""),
            principal=SimpleNamespace(account=caller),
            started=self.time,
        )
        self.recording.finished(story, object(), object())  # type: ignore[arg-type]

    async def minute(self) -> None:
        for sample in self.recording._samples.values():
            await self.recording._flush(sample)
        self.time += 60

    def rows(self) -> list[list[object]]:
        """Oldest file first."""
        found = [list(file) for file in read_files(self.directory, ["m"], Opener(PRIVATE))]
        return [[row.numbers or row.text for row in rows] for rows in found][::-1]

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())


def row(value: float) -> np.ndarray:
    return np.full((1, 2), value, np.float32)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "recordings")


async def test_rows_of_a_minute_are_thinned_and_counted(house) -> None:
    for value in range(10):
        house.ask(row(value))
    await house.minute()
    (rows,) = house.rows()
    assert len(rows) == 3
    assert house.recording.counts["recorded"] == 3
    assert {row(value).tobytes() for value in range(10)} >= set(rows)


async def test_a_file_that_was_deleted_takes_no_more_rows(house) -> None:
    house.ask(row(1))
    await house.minute()
    house.files[0].unlink()
    house.ask(row(2))
    await house.minute()
    assert house.rows() == [[row(2).tobytes()]]
    assert [event.effect for event in house.trail.events] == ["begun", "ended", "begun"]


async def test_what_the_journal_does_not_know_of_is_not_kept(house) -> None:
    house.trail.writable = False
    house.ask(row(1))
    await house.minute()
    assert (house.files, house.recording.counts["lost"]) == ([], 1)
    assert "not recorded" in dict(house.recording.checks())["recording"].detail
    house.trail.writable = True
    house.ask(row(2))
    await house.minute()
    assert house.rows() == [[row(2).tobytes()]]


async def test_old_files_are_deleted_and_that_is_on_record(house) -> None:
    house.ask(row(1))
    await house.minute()
    await house.recording.close()
    house.time += 31 * DAY
    await house.recording._delete()
    assert house.files == []
    assert [event.effect for event in house.trail.events] == ["begun", "ended", "deleted"]


async def test_texts_and_encoded_images_are_kept_as_they_were_sent(house) -> None:
    house.ask(Texts(lambda: [b"a text"]))
    house.ask(Images(lambda: [b"\x89PNG"], 4))
    house.ask(Images(lambda: [b"x"], 1), body=bytes(5 << 20))
    await house.minute()
    assert house.rows() == [[b"a text", b"\x89PNG"]]
    assert house.recording.counts["too_large"] == 1
