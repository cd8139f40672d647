"""A desk whose vectors are kept elsewhere: settings that fit together, and the same answers."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from server.base import InvalidRequestError
from server.build import build
from server.settings import Settings
from tests.desks import GUIDE, NOTES, fake_settings, open_desk, open_http, search, upload
from tests.pinecone_server import pinecone_server


async def found(data_dir: Path, **overrides: Any) -> list[tuple[str, str]]:
    """What a question finds after documents were added, changed and deleted, with a restart in between."""
    async with open_desk(data_dir, **overrides) as desk, open_http(desk) as http:
        await upload(http, {"guide.md": GUIDE, "notes.md": NOTES})
        await upload(http, {"notes.md": NOTES.replace("seven", "eight")})
    async with open_desk(data_dir, **overrides) as desk, open_http(desk) as http:
        reply = await search(http, filter={"missing": {"$exists": False}})
        nothing = await search(http, filter={"missing": {"$eq": 1}})
        assert nothing["hits"] == []
        assert not reply["degraded"]
        return [(hit["title"], hit["text"]) for hit in reply["hits"]]


async def test_faiss_finds_what_the_embedded_index_finds(tmp_path: Path) -> None:
    expected = await found(tmp_path / "edge")
    assert "serviced every six months" in expected[0][1]
    assert await found(tmp_path / "faiss", dense_index="faiss") == expected


async def test_pinecones_wire_finds_what_the_embedded_index_finds(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    expected = await found(tmp_path / "edge")
    with pinecone_server(128, api_key="secret") as server:
        overrides = {"dense_index": "pinecone", "pinecone_url": server.url, "pinecone_api_key_file": key}
        assert await found(tmp_path / "pinecone", **overrides) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dense_index": "qdrant"}, "qdrant_url"),
        ({"dense_index": "pinecone", "pinecone_url": "https://x"}, "pinecone_api_key_file"),
        ({"qdrant_url": "http://qdrant:6333"}, "dense_index='edge'"),
        ({"qdrant_write_consistency": 2}, "no write could succeed"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(**given)


async def test_a_key_file_without_a_key_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text(" \n")
    for file, said in ((empty, "is empty"), (tmp_path / "none", "cannot be read")):
        settings = fake_settings(
            tmp_path / "data", dense_index="qdrant", qdrant_url="http://127.0.0.1:1", qdrant_api_key_file=file
        )
        with pytest.raises(InvalidRequestError, match=said):
            await build(settings)
