"""Which of several equal servers a request goes to: the one with the fewest outstanding, never one that keeps failing.

A replica that failed EJECT_AFTER times in a row is ejected, longer each time; then one request at a time tries it again
(half open), and its success lets it back in. With every replica ejected the circuit is open: nothing is sent at all.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

EJECT_AFTER = 5  # one request's attempts
EJECT_S, EJECT_MAX_S = 1.0, 30.0


@dataclass(slots=True, eq=False)
class Replica:
    """A server and how it has been doing."""

    url: str
    outstanding: int = 0
    failures: int = 0  # in a row
    ejections: int = 0  # since its last success
    ejected_until: float = 0.0
    picked: int = 0  # when it was last chosen, counted in choices


class Replicas:
    """The state of one server's replicas. Single-threaded: one event loop uses it."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.all = [Replica(url) for url in dict.fromkeys(urls)]
        self._clock = clock
        self._picks = 0

    def pick(self, tried: Collection[Replica] = ()) -> Replica | None:
        """The replica for the next request, its `outstanding` raised; None if all are ejected.

        Fewest outstanding first, the least recently chosen of equals; those in `tried` only if there is no other.
        """
        usable = [replica for replica in self.all if self._is_usable(replica)]
        if not usable:
            return None
        chosen = min(usable, key=lambda replica: (replica in tried, replica.outstanding, replica.picked))
        self._picks += 1
        chosen.picked = self._picks
        chosen.outstanding += 1
        return chosen

    def release(self, replica: Replica, *, failed: bool | None) -> None:
        """A request has ended. `failed` None: it says nothing of the replica (the client left)."""
        replica.outstanding -= 1
        if failed is False:
            replica.failures = replica.ejections = 0
            replica.ejected_until = 0.0
        elif failed and self._clock() >= replica.ejected_until:  # else: begun before it was ejected, which says no more
            replica.failures += 1
            if replica.failures >= EJECT_AFTER or replica.ejections:
                replica.ejected_until = self._clock() + min(EJECT_MAX_S, EJECT_S * 2.0**replica.ejections)
                replica.ejections += 1
                replica.failures = 0

    def retry_in_s(self) -> float:
        """Seconds until an ejected replica may be tried again; 0 if one may be used now."""
        if any(self._is_usable(replica) for replica in self.all):
            return 0.0
        return max(0.0, min(replica.ejected_until for replica in self.all) - self._clock())

    def _is_usable(self, replica: Replica) -> bool:
        if not replica.ejections:
            return True
        return self._clock() >= replica.ejected_until and replica.outstanding == 0
