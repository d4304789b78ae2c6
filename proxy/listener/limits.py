"""Every cap and deadline of the listener, in one place."""

from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds. Nothing here can be switched off: a limit is a positive number.

    Deadlines are looked at by a sweep, so one may end up to a second late, and never early.
    """

    target_bytes: int = 2_048  # the request target
    header_bytes: int = 32_768  # all field lines; nginx: 4 x 8k, Apache: 100 x 8190
    header_count: int = 64  # field lines; trailers as many again
    body_bytes: int = 16 * 1024 * 1024
    connections: int = 2_048  # in all, handshakes included
    connections_per_source: int = 256  # from one IPv4 address or one IPv6 /64
    requests_per_connection: int = 10_000
    pipelined: int = 8  # messages that may wait behind the one being answered

    handshake: float = 10.0  # TLS, from accept to finished
    head: float = 10.0  # from the first byte of a message to the end of its header section; also accept to first byte
    body_idle: float = 10.0  # between two bytes of a body, while we are reading
    body_total: float = 60.0  # from the end of the header section to the end of the body
    keep_alive: float = 75.0  # from the end of an answer to the next message's first byte
    write_stall: float = 20.0  # with bytes to send and a client that takes none
    close: float = 5.0  # from our last word to the end of the connection

    def __post_init__(self) -> None:
        if not all(value > 0 for value in astuple(self)):
            raise ValueError("a limit of the listener is not above zero")

    @property
    def sweep_seconds(self) -> float:
        """How often deadlines are looked at: a quarter of the shortest, at least once a second."""
        return min(
            1.0,
            *(deadline / 4 for deadline in (self.head, self.body_idle, self.body_total)),
            *(deadline / 4 for deadline in (self.keep_alive, self.write_stall, self.close)),
        )
