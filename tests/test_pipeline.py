"""The pipeline whole, over real engines: ingest, search, answer, and what is left when a part of it fails."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexers.base import Hit, IndexUnavailableError, Namespace, Point, UnreadableError, View
from indexers.edge import EdgeIndex
from indexers.filter import parse_filter
from indexers.sources import Source, Upload
from models.base import (
    Delta,
    GenerationOptions,
    Generator,
    Message,
    ModelError,
    ModelNotFoundError,
    ModelUnavailableError,
    Prompt,
    QueryEmbedding,
)
from models.fake import FakeEmbedder, FakeReranker
from models.fake_generator import FakeGenerator
from server.base import (
    Answer,
    AnswerRequest,
    ConflictError,
    ContextTooLongError,
    InvalidRequestError,
    NotFoundError,
    SearchRequest,
    TextDelta,
)
from server.build import Desk
from server.catalog import Catalog
from server.ingest import Receipt, Target
from server.pipeline import Models, Pipeline
from server.prompt import REFUSAL, build_prompt
from server.rerank import Depth, Reranking
from tests import make_files
from tests.desks import GUIDE, NOTES, QUESTION, fake_settings, open_desk, text_file


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as desk:
        await ingest(desk, {"guide.md": GUIDE, "notes.md": NOTES})
        yield desk


async def ingest(desk: Desk, files: dict[str, str], target: Target = Target("docs")) -> Receipt:
    return await desk.pipeline.ingest([text_file(name, words) for name, words in files.items()], target)


def asked(question: str = QUESTION, **fields: object) -> SearchRequest:
    return replace(SearchRequest(question, "docs"), **fields)  # type: ignore[arg-type]


async def answer(pipeline: Pipeline, question: str = QUESTION, *, streamed: bool = True) -> tuple[list[str], Answer]:
    request = AnswerRequest((Message("user", question),), asked(question), streamed=streamed)
    events = [event async for event in pipeline.answer(request)]
    deltas = [event.text for event in events if isinstance(event, TextDelta)]
    assert isinstance(events[-1], Answer)
    return deltas, events[-1]


# --- ingest ----------------------------------------------------------------------------------------------------------


async def test_what_is_unchanged_costs_no_commit(desk: Desk) -> None:
    before = (await desk.catalog.namespace("docs", "default")).commit
    receipt = await ingest(desk, {"guide.md": GUIDE, "notes.md": NOTES})
    assert (receipt.tally.unchanged, receipt.commit) == (2, before)


async def test_a_changed_document_is_replaced_and_the_old_words_are_gone(desk: Desk) -> None:
    receipt = await ingest(desk, {"guide.md": GUIDE.replace("every six months", "once a year")})
    assert (receipt.tally.added, receipt.tally.replaced) == (0, 1)
    texts = [hit.chunk.text for hit in (await desk.pipeline.search(asked())).hits]
    assert any("once a year" in text for text in texts)
    assert not any("six months" in text for text in texts)


async def test_as_of_reads_the_old_words(desk: Desk) -> None:
    old = (await desk.catalog.namespace("docs", "default")).commit
    await ingest(desk, {"guide.md": GUIDE.replace("every six months", "once a year")})
    texts = [hit.chunk.text for hit in (await desk.pipeline.search(asked(as_of=old))).hits]
    assert any("six months" in text for text in texts)
    assert not any("once a year" in text for text in texts)
    with pytest.raises(InvalidRequestError, match=r"as_of=99: kept are commits 0 to 2"):
        await desk.pipeline.search(asked(as_of=99))


async def test_prune_deletes_what_no_source_names(desk: Desk) -> None:
    receipt = await ingest(desk, {"guide.md": GUIDE}, Target("docs", prune=True))
    assert (receipt.tally.unchanged, receipt.tally.pruned) == (1, 1)
    assert {hit.chunk.uri for hit in (await desk.pipeline.search(asked("harbour"))).hits} == {"guide.md"}


async def test_prune_forgets_the_failures_of_what_is_gone(desk: Desk) -> None:
    await ingest(desk, {"guide.md": GUIDE, "gone.md": "", "here.md": ""})
    await ingest(desk, {"guide.md": GUIDE, "here.md": ""}, Target("docs", prune=True))
    state = await desk.catalog.namespace("docs", "default")
    assert [failure.uri for failure in (await desk.catalog.failures(state.id))[0]] == ["here.md"]


async def test_prune_keeps_what_could_not_be_read(desk: Desk) -> None:
    files = [text_file("guide.md", GUIDE), text_file("notes.md", "")]
    receipt = await desk.pipeline.ingest(files, Target("docs", prune=True))
    assert [failure.reason for failure in receipt.tally.failures] == ["empty"]
    assert receipt.tally.pruned == 0
    state = await desk.catalog.namespace("docs", "default")
    failures, _ = await desk.catalog.failures(state.id)
    assert [failure.uri for failure in failures] == ["notes.md"]


@pytest.mark.parametrize("folder", ["", "hr/"])
async def test_prune_keeps_what_is_below_a_folder_that_could_not_be_listed(
    desk: Desk, tmp_path: Path, folder: str
) -> None:
    await ingest(desk, {"hr/pay.md": GUIDE, "hr/old/leave.md": NOTES})
    failure = UnreadableError(folder, "not found", "the folder cannot be listed: Permission denied")
    found = [Source(folder, tmp_path, failure), text_file("guide.md", GUIDE)]
    receipt = await desk.pipeline.ingest(found, Target("docs", prune=True))
    state = await desk.catalog.namespace("docs", "default")
    kept = {document.uri for document in (await desk.catalog.documents(state.id))[0]}
    assert kept == {"guide.md", "hr/pay.md", "hr/old/leave.md"} | ({"notes.md"} if not folder else set())
    assert receipt.tally.pruned == 4 - len(kept)


async def test_prune_deletes_nothing_where_nothing_is_found(desk: Desk) -> None:
    with pytest.raises(InvalidRequestError, match="nothing was pruned"):
        await desk.pipeline.ingest([], Target("docs", prune=True))
    state = await desk.catalog.namespace("docs", "default")
    assert len((await desk.catalog.documents(state.id))[0]) == 2


async def test_a_failure_is_forgotten_once_its_line_can_be_read(desk: Desk) -> None:
    async def failed() -> list[str]:
        state = await desk.catalog.namespace("docs", "default")
        return [failure.uri for failure in (await desk.catalog.failures(state.id))[0]]

    lines = ['{"text": "one"}', '{"text": ', '{"text": "three"}', "[]"]
    await ingest(desk, {"lines.jsonl": "\n".join(lines)})
    assert await failed() == ["lines.jsonl#2", "lines.jsonl#4"]
    await ingest(desk, {"lines.jsonl": "\n".join([lines[0], '{"text": "two"}', *lines[2:]])})
    assert await failed() == ["lines.jsonl#4"]


async def test_a_document_that_the_index_refuses_stops_no_other(desk: Desk) -> None:
    def line(first: int, words: str) -> str:
        return json.dumps({"text": words, "metadata": {f"n{i}": i for i in range(first, first + 600)}})

    lines = [line(0, "one"), line(300, "two"), line(5000, "three"), line(0, "four"), line(9000, "five")]
    receipt = await ingest(desk, {"many.jsonl": "\n".join(lines), "more.md": "six"})
    assert (receipt.tally.added, len(receipt.tally.failures)) == (4, 2)
    assert {failure.source for failure in receipt.tally.failures} == {"many.jsonl#3", "many.jsonl#5"}
    assert "numeric metadata fields" in receipt.tally.failures[0].detail
    assert (await desk.pipeline.search(asked("two", filter=parse_filter({"n899": 899})))).hits
    again = await ingest(desk, {"many.jsonl": "\n".join([*lines[:2], line(300, "three"), *lines[3:]])})
    assert (again.tally.added, again.tally.unchanged, len(again.tally.failures)) == (1, 3, 1)


async def test_a_document_of_which_a_part_is_lost_is_kept_and_named(desk: Desk) -> None:
    pages = make_files.pdf("Tide tables", [[("Low water", ["Low water is at six."])], [("High water", ["At noon."])]])
    lines = '{"text": "A sound line."}\n{"text": "Another", "metadata": {"$ref": 1}}\n{"text": "The last line."}\n'
    files = [Upload("tides.pdf", io.BytesIO(make_files.without_pages(pages, {2}))), text_file("lines.jsonl", lines)]
    receipt = await desk.pipeline.ingest(files, Target("docs"))
    assert receipt.tally.added == 3
    assert [failure.source for failure in receipt.tally.failures] == ["tides.pdf", "lines.jsonl#2"]
    assert {hit.chunk.uri for hit in (await desk.pipeline.search(asked("low water"))).hits} >= {"tides.pdf"}
    state = await desk.catalog.namespace("docs", "default")
    failures, _ = await desk.catalog.failures(state.id)
    assert [failure.uri for failure in failures] == ["lines.jsonl#2", "tides.pdf"]
    for again in (files[0].file, io.BytesIO(pages)):  # unchanged, the page is lost still; then repaired
        assert (await desk.catalog.failures(state.id))[0] == failures
        again.seek(0)
        await desk.pipeline.ingest([Upload("tides.pdf", again)], Target("docs"))
    failures, _ = await desk.catalog.failures(state.id)
    assert [failure.uri for failure in failures] == ["lines.jsonl#2"]


async def test_new_groups_and_metadata_are_a_commit_but_no_new_version(desk: Desk) -> None:
    state = await desk.catalog.namespace("docs", "default")
    before = (await desk.catalog.lookup(state.id, ["guide.md"]))["guide.md"]
    receipt = await ingest(desk, {"guide.md": GUIDE}, Target("docs", groups=("fitters",), metadata={"year": 2026.0}))
    after = (await desk.catalog.lookup(state.id, ["guide.md"]))["guide.md"]
    assert (receipt.tally.patched, receipt.tally.replaced) == (1, 0)
    assert after.version == before.version
    visible = {hit.chunk.uri for hit in (await desk.pipeline.search(asked(groups=frozenset({"clerks"})))).hits}
    assert visible == {"notes.md"}
    filtered = await desk.pipeline.search(asked(filter=parse_filter({"year": {"$gte": 2026}})))
    assert {hit.chunk.uri for hit in filtered.hits} == {"guide.md"}


# --- search ----------------------------------------------------------------------------------------------------------


async def test_hits_tell_the_legs_that_found_them(desk: Desk) -> None:
    result = await desk.pipeline.search(asked())
    assert set(result.hits[0].ranks) == {"dense", "bm25", "rerank"}
    assert result.reranker == "late-interaction"
    assert {"embed", "dense", "bm25", "fuse", "rerank", "own", "total"} <= set(result.timings_ms)


async def test_a_commit_makes_a_cached_ranking_unfindable(desk: Desk) -> None:
    assert not (await desk.pipeline.search(asked())).cached
    assert (await desk.pipeline.search(asked("How often must the  Kestrel pump be serviced?"))).cached
    await ingest(desk, {"third.md": "# Kestrel\n\nThe Kestrel pump must be serviced by a fitter."})
    result = await desk.pipeline.search(asked())
    assert not result.cached
    assert "third.md" in {hit.chunk.uri for hit in result.hits}


async def test_groups_and_filters_do_not_share_a_cached_ranking(desk: Desk) -> None:
    await desk.pipeline.search(asked())
    for other in (asked(groups=frozenset({"a"})), asked(top_k=1), asked(rerank=False)):
        assert not (await desk.pipeline.search(other)).cached


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (asked("  "), InvalidRequestError, "empty"),
        (asked("x" * 9000), InvalidRequestError, "9000 characters"),
        (replace(asked(), collection="other"), NotFoundError, "other"),
        (asked(namespaces=("nobody",)), NotFoundError, "nobody"),
        (asked(namespaces=tuple("abcdefghi")), InvalidRequestError, "1 to 8"),
    ],
)
async def test_a_wrong_request_says_what_is_wrong(
    desk: Desk, request_: SearchRequest, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await desk.pipeline.search(request_)


async def test_vectors_of_another_model_are_not_searched(desk: Desk, tmp_path: Path) -> None:
    collection = await desk.catalog.collection("docs")
    await desk.catalog.create_collection(
        replace(collection, spec=replace(collection.spec, name="older"), embedder="old", embedder_fingerprint="x")
    )
    await desk.catalog.namespace("older", "default", create=True)
    with pytest.raises(ConflictError, match="'old'"):
        await desk.pipeline.search(replace(asked(), collection="older"))


class OneLegged(EdgeIndex):
    """An index whose dense leg is down, and with it the vectors."""

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        raise IndexUnavailableError("the disk is gone")

    async def search_dense(
        self, namespace: Namespace, vector: object, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]:
        raise IndexUnavailableError("the disk is gone")


async def test_one_leg_down_leaves_the_other_and_says_so(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await ingest(desk, {"guide.md": GUIDE})
    async with AsyncExitStack() as opened:
        other = await opened.enter_async_context(open_desk(tmp_path / "other"))
        catalog = await Catalog.open(tmp_path / "catalog.sqlite")
        opened.push_async_callback(catalog.close)
        broken = OneLegged.open(tmp_path / "index")
        opened.push_async_callback(broken.close)
        pipeline = Pipeline(
            fake_settings(tmp_path),
            catalog,
            broken,
            writer=other.writer,
            models=other.pipeline.models,
            chunker=other.pipeline.chunker,
        )
        result = await pipeline.search(asked())
        assert result.hits
        assert set(result.hits[0].ranks) == {"bm25", "rerank"}
        assert result.degraded == ("dense leg of docs:default: the disk is gone",)
        assert not (await pipeline.search(asked())).cached, "a degraded ranking must not be kept"
        _, answered = await answer(pipeline)
        assert answered.citations
        assert answered.degraded == (
            "dense leg of docs:default: the disk is gone",
            "vectors of docs:default: the disk is gone",
        )


async def test_a_slow_reranker_reads_no_fewer_candidates_than_hits_are_asked_for(desk: Desk) -> None:
    await ingest(desk, {f"{number}.md": f"Pump {number} is serviced in spring." for number in range(40)})
    desk.pipeline.ranker.reranking = slow = Reranking(FakeReranker(), Depth(budget_ms=1.0))
    slow.depth.observe(1, 1000.0)
    result = await desk.pipeline.search(asked("Which pump is serviced in spring?", top_k=30))
    assert (len(result.hits), result.reranker) == (30, slow.reranker.info.name)
    assert sorted(hit.ranks["rerank"] for hit in result.hits) == list(range(1, 31))


class Late(FakeEmbedder):
    """An embedder behind a queue that does not end."""

    async def embed_queries(self, texts: Sequence[str]) -> list[QueryEmbedding]:
        await asyncio.Event().wait()
        return []


async def test_an_embedding_that_is_late_leaves_bm25_and_says_so(tmp_path: Path) -> None:
    async with open_desk(tmp_path, leg_timeout_s=0.2) as desk:
        await ingest(desk, {"guide.md": GUIDE})
        await ingest(desk, {"guide.md": GUIDE}, Target("docs", "other"))
        desk.pipeline.ranker.embedder = Late()
        for namespaces in (("default",), ("default", "other")):
            result = await desk.pipeline.search(asked(namespaces=namespaces))
            assert result.hits
            assert {leg for hit in result.hits for leg in hit.ranks} == {"bm25"}
            assert [f"dense leg of docs:{name}: no answer within 0.2 s" for name in namespaces] == list(
                result.degraded[: len(namespaces)]
            )


async def test_an_embedder_that_fails_leaves_bm25_and_says_so(desk: Desk) -> None:
    await desk.pipeline.models.embedder.close()
    result = await desk.pipeline.search(asked())
    assert result.hits
    assert set(result.hits[0].ranks) == {"bm25"}
    assert result.degraded[0].startswith("embedding: ")


@pytest.mark.parametrize("rerank", [False, True])
async def test_a_search_of_several_namespaces_reads_the_catalog_twice_at_most(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, rerank: bool
) -> None:
    for name in ("east", "west"):
        await ingest(desk, {f"{name}.md": GUIDE}, Target("docs", name))
    reads, read = 0, Catalog.read

    async def counted(self: Catalog, *args: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(self, *args, **kwargs)

    monkeypatch.setattr(Catalog, "read", counted)
    result = await desk.pipeline.search(asked(namespaces=("default", "east", "west"), rerank=rerank))
    assert {(hit.namespace, hit.chunk.uri) for hit in result.hits} >= {("east", "east.md"), ("west", "west.md")}
    assert reads <= 2


# --- answer ----------------------------------------------------------------------------------------------------------


async def test_deltas_joined_are_the_answer_and_quotes_are_slices(desk: Desk) -> None:
    deltas, whole = await answer(desk.pipeline)
    assert "".join(deltas) == whole.text
    assert whole.citations
    for citation in whole.citations:
        text = await desk.catalog.text(citation.document_id, citation.version, citation.start, citation.end)
        assert text == citation.quote


async def test_a_question_the_documents_do_not_answer_is_refused(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.pipeline.ingest([], Target("docs"))
        _, whole = await answer(desk.pipeline)
    assert (whole.text, whole.refused, whole.citations) == (REFUSAL, True, ())


class Scripted(FakeGenerator):
    """A generator that says given words, then fails with an error if there is one; `asked` is what it was asked."""

    def __init__(self, words: Sequence[str], error: ModelError | None = None, *, context_length: int = 8192) -> None:
        super().__init__(context_length=context_length)
        self.words, self.error = words, error
        self.asked: list[Prompt] = []

    async def generate(self, prompt: Prompt, options: GenerationOptions) -> AsyncGenerator[Delta, None]:
        self.asked.append(prompt)
        for word in self.words:
            yield Delta(word)
        if self.error is not None:
            raise self.error
        yield Delta("", "stop")


class Uncountable(FakeGenerator):
    """A generator whose tokens cannot be counted: its server does not know the path, or the model."""

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        raise ModelNotFoundError("the model is gone")


def with_generator(desk: Desk, generator: Generator) -> Pipeline:
    models = desk.pipeline.models
    return Pipeline(
        desk.settings,
        desk.catalog,
        desk.index,
        writer=desk.writer,
        models=Models(models.embedder, models.reranking, generator, models.fallback),
        chunker=desk.pipeline.chunker,
    )


@pytest.mark.parametrize(
    ("generator", "why"),
    [
        (Scripted([], ModelUnavailableError("the model is gone")), "the model is gone"),
        (Scripted([" "], ModelNotFoundError("the model is gone")), "the model is gone"),
        (Scripted([]), "without a word"),
        (Scripted([" ", "\n"]), "without a word"),
        (Uncountable(), "the model is gone"),
    ],
)
async def test_a_generator_that_fails_before_its_first_word_is_stood_in_for(
    desk: Desk, generator: Generator, why: str
) -> None:
    deltas, whole = await answer(with_generator(desk, generator))
    assert whole.generator == "extractive"
    assert why in whole.degraded[-1]
    assert "".join(deltas) == whole.text == whole.text.strip()
    assert whole.citations


async def test_a_stream_that_fails_half_way_is_not_continued_by_another(desk: Desk) -> None:
    with pytest.raises(ModelUnavailableError, match="the model is gone"):
        await answer(with_generator(desk, Scripted(["Every "], ModelUnavailableError("the model is gone"))))


async def test_an_answer_that_nobody_has_read_yet_is_begun_anew_by_another(desk: Desk) -> None:
    failing = with_generator(desk, Scripted(["Invented "], ModelUnavailableError("the model is gone")))
    _, whole = await answer(failing, streamed=False)
    assert whole.generator == "extractive"
    assert "the model is gone" in whole.degraded[-1]
    assert "Invented" not in whole.text
    assert whole.citations
    deltas, whole = await answer(with_generator(desk, Scripted(["Every ", "month [1]."])), streamed=False)
    assert (whole.generator, "".join(deltas)) == (Scripted([]).info.name, whole.text)


async def test_nothing_is_asked_without_passages(desk: Desk) -> None:
    bare = await FakeGenerator().count_prompt_tokens(build_prompt(QUESTION, (), ()).messages)
    generator = Scripted(["Invented."], context_length=bare + desk.settings.max_tokens + 3)
    with pytest.raises(ContextTooLongError, match="3 tokens left"):
        await answer(with_generator(desk, generator))
    assert generator.asked == []


async def test_sentences_longer_than_the_context_are_refused_and_the_answer_says_why(tmp_path: Path) -> None:
    generator = Scripted(["Invented."])
    async with open_desk(tmp_path, context_tokens=64) as desk:
        await ingest(desk, {"long.md": f"The Kestrel pump must be serviced {'and oiled ' * 60}every six months."})
        _, whole = await answer(with_generator(desk, generator))
    assert (whole.text, whole.refused, generator.asked) == (REFUSAL, True, [])
    assert "context_tokens=64" in whole.degraded[-1]


async def test_the_generator_gets_the_question_as_it_was_searched_for(desk: Desk) -> None:
    generator = Scripted(["Yes."])
    await answer(with_generator(desk, generator), f"  Who repairs a  pu\u0308mp? {QUESTION}\n")
    (prompt,) = generator.asked
    assert prompt.question == f"Who repairs a p\u00fcmp? {QUESTION}"
    assert f"Question: {prompt.question}\n" in prompt.messages[-1].content
