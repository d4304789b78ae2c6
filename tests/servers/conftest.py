"""The real servers as fixtures. Each starts once in a session, and once in every worker that runs a test of it.

Therefore the tests of one server stand in one file, and `--dist loadfile` keeps a file in one worker. (`loadgroup` does
nothing with pytest 9.2 and pytest-xdist 3.8: the group is written into an attribute that pytest no longer reads.)
"""

import os
from collections.abc import Iterator

import pytest

from tests.servers import launch
from tests.servers.running import PYTHON, RunningServer, require_environment

SERVERS = ("mlserver", "triton", "mlflow", "litserve")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what needs a real server."""
    if not set(SERVERS).isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker("server")


@pytest.fixture(scope="session")
def servers_environment() -> None:
    require_environment(PYTHON, ci=os.environ.get("CI") == "true")


@pytest.fixture(scope="session")
def mlserver(servers_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with launch.mlserver(tmp_path_factory.mktemp("mlserver")) as server:
        yield server


@pytest.fixture(scope="session")
def triton(servers_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with launch.triton(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="session")
def mlflow(servers_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with launch.mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def litserve(servers_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with launch.litserve(tmp_path_factory.mktemp("litserve")) as server:
        yield server
