"""`hip demo`: every stop of the tour is a success, through TLS, and leaves a journal that verifies."""

import re
import subprocess
import sys
from pathlib import Path

from proxy.demo.tour import Tour
from proxy.demo.world import demo_world, fresh

HIP = [sys.executable, "-m", "proxy"]


async def test_every_stop_of_the_tour(tmp_path):
    async with demo_world(tmp_path) as world:
        stops = await Tour(world).walk()
        hits = world.model_server.hits
    assert [stop.title for stop in stops if not stop.passed] == []
    assert len(stops) == 8
    # Six that were allowed, and the four that the tour asks the model server itself.
    assert hits == 10


def test_the_command_ends_with_0_and_says_where_everything_is(tmp_path):
    directory = tmp_path / "demo"
    done = subprocess.run([*HIP, "demo", "--directory", directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    # The lines that it prints are to be typed.
    for line in re.findall(r"hip (audit verify .*|audit show .*|check .*)", done.stdout):
        follow = subprocess.run([*HIP, *line.split()], capture_output=True, text=True, check=False)
        assert follow.returncode == 0, (line, follow.stdout, follow.stderr)


def test_a_directory_that_no_demo_made_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    done = subprocess.run([*HIP, "demo", "--directory", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (tmp_path / "thesis.tex").exists()
    assert fresh(Path(tmp_path / "new")).is_dir()
