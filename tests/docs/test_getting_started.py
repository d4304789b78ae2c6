"""docs/getting-started.md, executed: every command in its order, every file as shown, every output as promised."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.begun import shell
from tests.servers.running import free_ports

PAGE = (Path(__file__).parents[2] / "docs" / "getting-started.md").read_text()
BLOCKS = re.findall(r"^```(console|yaml)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PROMISED_WITHIN = 20.0  # seconds: a start, or a reload

_READY = {"python -m proxy.demo.model_server": "8080/v2/health/ready", "hip serve": "9090/readyz"}


@dataclass(slots=True)
class Terminal:
    """A shell that a reader of the page sits before: a directory, variables, jobs in the background."""

    directory: Path
    ports: dict[str, str]  # of the page -> of this run
    variables: dict[str, str] = field(default_factory=dict)
    jobs: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def here(self, text: str) -> str:
        """Return the page's text with this run's ports."""
        return re.sub(r"\b(?:8080|8443|9090)\b", lambda found: self.ports[found[0]], text)

    def run(self, command: str, promised: str) -> None:
        """Run a command; what the page promises must be in its output, now or within a moment."""
        command, _, remark = command.partition(" # ")
        code = int(re.match(r"ends with (\d)", remark)[1]) if remark else 0  # type: ignore[index]
        script = self.here(command)
        if script.startswith("hip init"):  # where the page's ports are the defaults
            script += f" --port {self.ports['8443']} --admin-port {self.ports['9090']}"
        if script.endswith(" &"):
            return self._start(command, script.removesuffix(" &"))
        if stopped := re.fullmatch(r"kill %(\d)", script):
            return self._stop(self.jobs[int(stopped[1]) - 1])
        if assigned := re.match(r"([A-Z]+)=", script):
            self.variables[assigned[1]] = self._shell(f'{script}\nprintf %s "${assigned[1]}"', 0)
            return None
        self._await(script, self.here(promised), code)
        return None

    def write(self, text: str) -> None:
        """Put a file where its first line says."""
        name, _, content = text.removeprefix("# file: ").partition("\n")
        (self.directory / name).write_text(content)

    def end(self) -> None:
        for job in self.jobs:
            if job.poll() is None:
                job.terminate()
                job.wait(PROMISED_WITHIN)

    def _shell(self, script: str, code: int) -> str:
        given = "".join(f"{name}='{value}'\n" for name, value in self.variables.items())
        return shell(given + script, self.directory, code)

    def _await(self, script: str, promised: str, code: int) -> None:
        pattern = ".*".join(re.escape(part) for part in promised.rstrip("\n").replace("\n…\n", "…").split("…"))
        until = time.monotonic() + PROMISED_WITHIN
        while True:
            output = self._shell(script, code)
            if re.search(pattern, output, re.DOTALL):
                return
            if time.monotonic() > until:
                pytest.fail(f"{script}\npromised:\n{promised}\nsaid:\n{output}")
            time.sleep(0.1)

    def _start(self, command: str, script: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (self.directory / f"job-{len(self.jobs)}.log").open("wb") as log:
            job = subprocess.Popen(
                ["bash", "-c", f"exec {script}"],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": path},
            )
        self.jobs.append(job)
        (health,) = [place for start, place in _READY.items() if command.startswith(start)]
        ask = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{self.here(health)} || true"
        self._await(ask, "200", 0)

    @staticmethod
    def _stop(job: "subprocess.Popen[bytes]") -> None:
        job.send_signal(signal.SIGTERM)
        assert job.wait(PROMISED_WITHIN) == 0


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    ports = dict(zip(("8080", "8443", "9090"), map(str, free_ports(3)), strict=True))
    sitting = Terminal(tmp_path, ports)
    yield sitting
    sitting.end()


def test_the_page_is_true_from_its_first_command_to_its_last(terminal):
    ran = 0
    for kind, text in BLOCKS:
        if kind == "yaml":
            terminal.write(text)
            continue
        for command, promised in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            terminal.run(command, promised)
            ran += 1
    assert ran == PAGE.count("\n$ ")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target
