"""How many requests one principal may have under way in this worker, so that many behind one address share it fairly.

`proxy.listener.capacity` shares between addresses, before anybody's token is looked at; this is what it cannot know.
Single-threaded; a request that was never given a place may leave all the same.
"""

from collections import Counter


class PrincipalPlaces:
    """`proxy.ports.Places`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[str, str] = {}  # event: account
        self._accounts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many requests have a place."""
        return len(self._held)

    def take(self, event: str, account: str) -> bool:
        """Give a request a place, if the account has one left."""
        if self._accounts.get(account, 0) >= self._limit:
            return False
        self._accounts[account] += 1
        self._held[event] = account
        return True

    def leave(self, event: str) -> None:
        """Free the place of a request, if it has one."""
        account = self._held.pop(event, None)
        if account is None:
            return
        self._accounts[account] -= 1
        if not self._accounts[account]:
            del self._accounts[account]
