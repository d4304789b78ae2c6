"""Web addresses in a policy: what one looks like, and whether somebody on the way could read along. Pure."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

# RFC 3986 without user names, fragments and everything that two programs might read differently.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~-]+)*)/?(?P<query>\?[A-Za-z0-9._~=&-]*)?"
)


@dataclass(frozen=True, slots=True)
class Url:
    """An address, taken apart."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def clear_on_the_wire(self) -> bool:
        """Say whether another machine could read along."""
        return self.scheme == "http" and not _loopback(self.host)


def read_url(text: str) -> Url | None:
    """Return an address, or None for what is none."""
    match = _URL.fullmatch(text)
    if match is None:
        return None
    host, port = match["host"].strip("[]"), int(match["port"] or {"http": 80, "https": 443}[match["scheme"]])
    if port > 65_535 or ("[" in match["host"] and not _is_address(host)):
        return None
    if any(segment in {".", ".."} for segment in match["path"].split("/")):
        return None
    return Url(match["scheme"], host, port, match["path"], match["query"] or "")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)
