"""What the image tests talk about: commands, a network that leads nowhere, a container that runs as one should."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
UID = 65532
PATIENCE = 60  # seconds for one exchange with the container; never awaited when all is well


def command(*words: object, check: bool = True) -> str:
    """Run a command and return what it says; its complaint is the test's."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if check and done.returncode:
        pytest.fail(f"{words} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Nowhere:
    """A network with a route that leads into a counter."""

    name: str

    def run(self, *words: object) -> str:
        """Run a command in it."""
        return command("ip", "netns", "exec", self.name, *words)

    def sent(self) -> int:
        """How many packets somebody sent to the world."""
        return int(self.run("cat", "/sys/class/net/out0/statistics/tx_packets"))


@dataclass(frozen=True, slots=True)
class Container:
    """A proxy that runs as one should."""

    name: str
    network: Nowhere
    state: Path
    journey: Path

    def inspect(self, template: str) -> str:
        return command("podman", "inspect", "--format", template, self.name)

    def status(self) -> dict[str, str]:
        """What the kernel says of the process."""
        lines = Path(f"/proc/{self.inspect('{{.State.Pid}}')}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def logs(self) -> str:
        done = subprocess.run(["podman", "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    @contextmanager
    def inside(self, what: str) -> "Iterator[subprocess.Popen[str]]":
        """Run `tests/images/inside.py` beside it."""
        asking = [sys.executable, "-m", "tests.images.inside", what, str(self.journey)]
        words = ["ip", "netns", "exec", self.network.name, *asking]
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def said(self, asking: "subprocess.Popen[str]") -> dict[str, Any]:
        """What `inside` saw."""
        output, errors = asking.communicate(timeout=PATIENCE)
        assert asking.returncode == 0, errors[-3000:] + self.logs()
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found
