"""A folder's sources: in order, without hidden files, and never outside the folder."""

import os
from pathlib import Path

import pytest

from indexers.base import UnreadableError
from indexers.read import sources


def names(root: Path) -> list[str]:
    return [source.uri for source in sources(root) if source.failure is None]


def test_files_come_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in (
        "b.txt",
        "a/z.txt",
        "a/b/c.txt",
        "a.txt",
        ".git/config",
        "a/.hidden",
        "~$plan.docx",
        "Z.txt",
        "ä b\n.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert names(tmp_path) == ["Z.txt", "a/b/c.txt", "a/z.txt", "a.txt", "b.txt", "ä b\n.txt"]
    assert [s.load(100).decode() for s in sources(tmp_path)] == names(tmp_path)


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    (tmp_path / ".a.md").write_text("words")
    (source,) = sources(tmp_path / ".a.md")
    assert (source.uri, source.load(5)) == (".a.md", b"words")


def test_links_are_followed_to_files_inside_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "..data").mkdir(parents=True)
    (root / "..data" / "config.md").write_text("inside")
    (tmp_path / "secret.txt").write_text("outside")
    (root / "config.md").symlink_to("..data/config.md")  # as Kubernetes mounts files
    (root / "out.txt").symlink_to("../secret.txt")
    (root / "folder").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "gone").symlink_to("nowhere")
    found = {source.uri: source for source in sources(root)}
    assert found["config.md"].load(100) == b"inside"
    reasons = {uri: source.failure.reason for uri, source in found.items() if source.failure}
    assert reasons == {"out.txt": "unsupported", "folder": "unsupported", "loop": "not found", "gone": "not found"}
    for uri in reasons:
        with pytest.raises(UnreadableError):
            found[uri].load(100)


def test_a_file_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (source,) = sources(tmp_path)
    source.path.unlink()
    source.path.symlink_to("/etc/passwd")
    with pytest.raises(UnreadableError) as caught:
        source.load(10**6)
    assert caught.value.reason == "not found"


def test_pipes_and_large_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "big.txt").write_text("x" * 101)
    reasons = []
    for source in sources(tmp_path):
        with pytest.raises(UnreadableError) as caught:
            source.load(100)
        reasons.append((source.uri, caught.value.reason))
    assert reasons == [("big.txt", "too large"), ("pipe.txt", "unsupported")]


def test_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("words")
    (source,) = sources(tmp_path)
    assert source.uri == r"caf\xe9.txt"
    assert source.failure is not None
    source.uri.encode()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="nowhere") as caught:
        list(sources(tmp_path / "nowhere"))
    assert caught.value.reason == "not found"
