"""Settings: one dial, frozen, strict, and each one documented."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.base import InvalidRequestError
from server.build import build
from server.secret import read_secret
from server.settings import Settings
from server.settings_page import as_markdown

DOCS = Path(__file__).parent.parent / "docs" / "settings.md"


def test_every_setting_is_documented() -> None:
    assert DOCS.read_text() == as_markdown(), "run: python -m server.settings_page > docs/settings.md"
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings(prot=8080)  # type: ignore[call-arg]


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_TOPK", "7")
    with pytest.raises(ValidationError, match="REFDESK_TOPK"):
        Settings()


def test_an_open_door_is_refused() -> None:
    with pytest.raises(ValidationError, match="keys_required=false is refused"):
        Settings(keys_required=False, host="0.0.0.0")


def test_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_TOP_K", "7")
    assert Settings().top_k == 7
    monkeypatch.setenv("REFDESK_TOP_K", "many")
    with pytest.raises(ValidationError, match="top_k"):
        Settings()


@pytest.mark.parametrize(
    ("setting", "value", "module", "package"),
    [
        ("catalog_url", "postgresql://localhost/refdesk", "server.postgres", "psycopg"),
        ("dense_index", "faiss", "indexers.faiss_vectors", "faiss"),
    ],
)
async def test_a_setting_whose_packages_are_missing_says_what_brings_them(
    setting: str, value: str, module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name in {module, "indexers.faiss"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # an import that fails as that of a missing package
    with pytest.raises(
        InvalidRequestError, match=f"{setting}.* needs '{package}': install (requirements/.*txt)"
    ) as said:
        await build(
            Settings(data_dir=tmp_path, embedder="fake", generator="fake", **{setting: value}), command="a test"
        )
    assert (Path(__file__).parent.parent / str(said.value).rpartition(" ")[2]).exists()


@pytest.mark.parametrize("content", ["sk-one\nsk-two", "sk-ö", "sk one\tsk"])
def test_a_key_file_that_holds_more_than_a_key_is_refused_without_showing_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(InvalidRequestError, match="holds more than a key") as caught:
        read_secret(tmp_path / "key")
    assert "sk" not in str(caught.value).replace(str(tmp_path), "")


async def test_a_language_that_bm25_does_not_know_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"'englisch'.*use one such as 'english'"):
        await build(Settings(data_dir=tmp_path / "data", embedder="fake", language="englisch"))
    assert not (tmp_path / "data").exists()
