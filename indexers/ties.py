"""Rankings from engines that break ties as they like: among equal scores the smallest ids are to be returned."""

from collections.abc import Awaitable, Callable, Sequence

from indexers.base import Hit

_SPARE = 8  # hits asked for beyond top_k, to see whether the last place is shared
_MOST_TIES = 1024  # of more equal scores than these at the last place, the engine chooses which are returned


async def search_ranked(search: Callable[[int], Awaitable[Sequence[Hit]]], top_k: int) -> list[Hit]:
    """The best `top_k` hits by score, then id. `search` returns a given number of hits, best first; it is asked for a
    few more than top_k, and for more still while the last place is shared."""
    limit = top_k + _SPARE if top_k > 0 else 0
    while limit:
        found = await search(limit)
        if len(found) < limit or found[-1].score != found[top_k - 1].score or limit >= _MOST_TIES:
            return sorted(found, key=lambda hit: (-hit.score, hit.id))[:top_k]
        limit *= 4
    return []
