"""The policy directory on a real file system: what is read, what is refused, and what is seen to change."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.adapters import watch
from proxy.adapters.watch import MAX_FILE_BYTES, MAX_FILES, changes, read_directory
from proxy.errors import ConfigError

PATIENCE = 20  # seconds until a change that was not seen fails the test


def refused(directory: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_directory(directory)
    return [str(finding) for finding in caught.value.findings]


def test_only_yaml_files_are_policy(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "README.md", "policy.schema.json", ".hidden.yaml", "a.yaml~"):
        (tmp_path / name).write_text(name)
    for folder in ("tests", "detectors", ".git"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tests/t.yaml").write_text("t")
    (tmp_path / ".git/c.yaml").write_text("c")
    (tmp_path / "detectors/iris.onnx").write_bytes(b"\0")
    assert list(read_directory(tmp_path).items()) == [("a.yaml", b"a.yaml"), ("b.yaml", b"b.yaml")]


def test_an_empty_directory_is_no_files(tmp_path: Path) -> None:
    assert read_directory(tmp_path) == {}


def test_what_would_be_left_out_by_mistake_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deny.yml").write_text("a deny rule")
    (tmp_path / "team").mkdir()
    (tmp_path / "team/deny.yaml").write_text("another")
    assert [line.partition(" (")[0] for line in refused(tmp_path)] == [
        "deny.yml: would be left out",
        "team/: has policy files that would be left out",
    ]


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "a.yaml").symlink_to(tmp_path / "secret")
    (directory / "b.yaml").symlink_to("nothing")
    (directory / "c.yaml").symlink_to("c.yaml")
    (directory / "d.yaml").mkdir()
    assert [line.partition(" (")[0] for line in refused(directory)] == [
        "a.yaml: a link that leads out of the directory",
        "b.yaml: a link to nothing",
        "c.yaml: a link that goes in a circle",
        "d.yaml: not a regular file",
    ]


def test_a_named_pipe_does_not_hold_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    assert refused(tmp_path)[0].startswith("a.yaml: not a regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x")
    (tmp_path / "a.yaml").chmod(0)
    assert "permission denied" in refused(tmp_path)[0]


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such file or directory" in refused(tmp_path / "gone")[0]
    (tmp_path / "file").write_text("x")
    assert "not a directory" in refused(tmp_path / "file")[0]


def test_of_a_huge_file_no_more_is_read_than_shows_that_it_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(50 << 20)
    assert len(read_directory(tmp_path)["a.yaml"]) == MAX_FILE_BYTES + 1


def test_the_number_of_files_is_capped(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.yaml").write_text("x")
    assert "more than 256 policy files" in refused(tmp_path)[0]


def config_map(directory: Path, version: str, content: str) -> None:
    """Write a version as kubelet does: a new folder, then one rename of `..data`."""
    folder = directory / f"..{version}"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text(content)
    (folder / "b.yaml").write_text(content)
    (directory / "..data_tmp").symlink_to(folder.name)
    (directory / "..data_tmp").rename(directory / "..data")
    for name in ("a.yaml", "b.yaml"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")


def test_a_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    config_map(tmp_path, "1", "one")
    assert read_directory(tmp_path) == {"a.yaml": b"one", "b.yaml": b"one"}


def test_a_swap_in_the_middle_of_reading_never_mixes_two_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_map(tmp_path, "1", "one")
    swaps = iter(["2"])
    content = watch._content

    def swapping(path: Path, root: Path) -> object:
        if path.name == "b.yaml" and (version := next(swaps, None)):
            config_map(tmp_path, version, "two")
        return content(path, root)

    monkeypatch.setattr(watch, "_content", swapping)
    assert read_directory(tmp_path) == {"a.yaml": b"two", "b.yaml": b"two"}


def test_a_directory_that_never_rests_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("0")
    numbers = iter(range(1000))
    content = watch._content

    def restless(path: Path, root: Path) -> object:
        path.write_text("x" * next(numbers))
        return content(path, root)

    monkeypatch.setattr(watch, "_content", restless)
    assert "keeps changing while it is read" in refused(tmp_path)[0]


# ── watching ────────────────────────────────────────────────────────────────────────────────────────────────────


class Watched:
    """What a reader of `changes` sees."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: dict[str, bytes] = {}
        self.count = 0
        self._seen = asyncio.Condition()

    async def follow(self, stop: asyncio.Event, since: watch.State) -> None:
        async for _ in changes(self.directory, stop, since):
            async with self._seen:
                self.count += 1
                self.files = dict(read_directory(self.directory)) if self.directory.is_dir() else {}
                self._seen.notify_all()

    async def until(self, **expected: bytes) -> None:
        """Wait until the files are these (`a` for a.yaml)."""
        wanted = {f"{name}.yaml": content for name, content in expected.items()}
        async with asyncio.timeout(PATIENCE), self._seen:
            await self._seen.wait_for(lambda: self.files == wanted)

    async def until_more_than(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE), self._seen:
            await self._seen.wait_for(lambda: self.count > count)


@asynccontextmanager
async def watching(directory: Path) -> AsyncIterator[Watched]:
    watched, stop = Watched(directory), asyncio.Event()
    task = asyncio.create_task(watched.follow(stop, watch.state(directory)))
    try:
        yield watched
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await task


async def test_a_changed_a_new_and_a_removed_file_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("1")
    async with watching(tmp_path) as watched:
        (tmp_path / "a.yaml").write_text("2")
        await watched.until(a=b"2")
        (tmp_path / "b.yaml").write_text("3")
        await watched.until(a=b"2", b=b"3")
        (tmp_path / "a.yaml").unlink()
        await watched.until(b=b"3")


async def test_an_editor_that_replaces_the_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("1")
    async with watching(tmp_path) as watched:
        (tmp_path / ".a.yaml.swp").write_text("2")
        (tmp_path / ".a.yaml.swp").rename(tmp_path / "a.yaml")
        await watched.until(a=b"2")


async def test_a_new_detector_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("1")
    (tmp_path / "detectors").mkdir()
    async with watching(tmp_path) as watched:
        (tmp_path / "detectors/iris.onnx").write_bytes(b"new")
        await watched.until_more_than(0)
        assert watched.files == {"a.yaml": b"1"}


async def test_a_config_map_swap_is_seen_as_one_change(tmp_path: Path) -> None:
    config_map(tmp_path, "1", "one")
    async with watching(tmp_path) as watched:
        config_map(tmp_path, "2", "two")
        await watched.until(a=b"two", b=b"two")


async def test_a_directory_that_is_replaced_as_a_whole_is_still_watched(tmp_path: Path) -> None:
    """`policies -> releases/2`: the events of the old directory say nothing, the regular look does."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(version)
    link = tmp_path / "policies"
    link.symlink_to("1")
    async with watching(link) as watched:
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").rename(link)
        await watched.until(a=b"2")
        (tmp_path / "2/a.yaml").write_text("3")
        await watched.until(a=b"3")


async def test_a_directory_that_comes_back_is_seen(tmp_path: Path) -> None:
    directory = tmp_path / "policies"
    async with watching(directory) as watched:
        directory.mkdir()
        (directory / "a.yaml").write_text("1")
        await watched.until(a=b"1")


async def test_a_change_of_the_tests_is_no_change_of_the_policy(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "a.yaml").write_text("1")
    async with watching(tmp_path) as watched:
        (tmp_path / "tests/t.yaml").write_text("t")
        (tmp_path / "a.yaml").write_text("2")
        await watched.until(a=b"2")
    assert watch.state(tmp_path) == watch.state(tmp_path)
    assert not any(name.startswith("tests") for name, *_ in watch.state(tmp_path))
