"""A real OpenID provider for the tests of this folder; without Node they skip here, and fail where CI is."""

import os
import shutil
from collections.abc import Iterator

import pytest
from openid import HERE, Provider, running_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """A provider with fresh keys, shared by the tests of a file."""
    node = shutil.which("node")
    if node is None:
        _missing("no `node` on this machine: the real OpenID provider cannot run")
    elif not (HERE / "node_modules" / "oidc-provider").is_dir():
        _missing("the provider is not installed: run `npm ci --prefix tests/idp`")
    else:
        with running_provider(node) as running:
            yield running


def _missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
