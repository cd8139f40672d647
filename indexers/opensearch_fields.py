"""The numeric fields of each index: made before a document uses them, up to a limit, so that no mapping grows by
what users happen to write."""

import asyncio
from collections.abc import Mapping

from indexers.base import InvalidPointError
from indexers.opensearch_client import Client
from indexers.opensearch_schema import MAX_NUMERIC_FIELDS, NUMERIC


class NumericFields:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, set[str]] = {}
        self._making = asyncio.Lock()

    async def require(self, alias: str, names: Mapping[str, str]) -> None:
        """Make the fields that the index lacks. `names`: the field in the index → a user's name for it. Raises
        InvalidPointError where there would be too many."""
        if names.keys() <= self._known.get(alias, set()):
            return
        async with self._making:
            known = self._known[alias] = await self._read(alias)
            new = [field for field in names if field not in known]
            if len(known) + len(new) > MAX_NUMERIC_FIELDS:
                raise InvalidPointError(
                    f"index {alias!r} has {len(known)} numeric metadata fields; with {names[new[0]]!r} it would exceed "
                    f"{MAX_NUMERIC_FIELDS}: use fewer names, or strings"
                )
            if new:
                fields = {field: {"type": "long"} for field in new}
                await self._client.send("PUT", f"/{alias}/_mapping", {"properties": fields})
                known.update(new)

    def forget(self, alias: str) -> None:
        """Look anew the next time: the index may have been dropped and made again."""
        self._known.pop(alias, None)

    async def _read(self, alias: str) -> set[str]:
        answer = await self._client.send("GET", f"/{alias}/_mapping")
        fields = [name for index in answer.values() for name in index["mappings"].get("properties", ())]
        return {name for name in fields if name.startswith(NUMERIC)}
