"""One proxy for every test of the roads."""

from collections.abc import Iterator

import pytest

from tests.roads.place import Place, place


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("roads")) as running:
        yield running


@pytest.fixture
def roads(standing: Place) -> Place:
    for one in standing.upstreams.values():
        one.asked.clear()
        one.bodies.clear()
        one.kinds.clear()
        one.instead = None
    return standing
