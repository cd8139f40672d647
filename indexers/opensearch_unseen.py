"""Which writes of this process a search may not see yet: OpenSearch shows them after a refresh only."""

from collections.abc import Iterable

_MOST_IDS = 100_000  # about 15 MB; beyond, every id counts as unseen


class Unseen:
    """Ids written since the last refresh, each with the oldest commit it was written for."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._oldest: int | None = None
        self._is_full = False

    def note(self, ids: Iterable[str], commit: int) -> None:
        """Remember what is about to be written."""
        self._oldest = commit if self._oldest is None else min(commit, self._oldest)
        for id_ in ids:
            if len(self._ids) >= _MOST_IDS:
                self._is_full = True
                return
            self._ids[id_] = min(commit, self._ids.get(id_, commit))

    def hides(self, until: int | None = None, ids: Iterable[str] | None = None) -> bool:
        """Whether a search might miss a write stamped with a commit up to `until` (None: any), under these ids."""
        if self._oldest is None or (until is not None and self._oldest > until):
            return False
        if ids is None or self._is_full:
            return True
        return any(id_ in self._ids and (until is None or self._ids[id_] <= until) for id_ in ids)

    def taken(self) -> "Unseen":
        """What is unseen until now; this object begins anew."""
        before = Unseen()
        before._ids, before._oldest, before._is_full = self._ids, self._oldest, self._is_full
        self._ids, self._oldest, self._is_full = {}, None, False
        return before

    def put_back(self, before: "Unseen") -> None:
        """After a refresh that failed."""
        for id_, commit in before._ids.items():
            self.note([id_], commit)
        if before._oldest is not None:
            self.note([], before._oldest)
        self._is_full = self._is_full or before._is_full
