"""What refdesk does, a screen each: search documents, answer from them, ingest them. Read this file first.

search: states → (cache) → rank → hits.   answer: search → context → generate → cite.
ingest: read → keep → chunk → embed → commit (server/ingest.py). Beside one, answers may be held (server/share.py).
"""

import asyncio
import time
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from indexers.base import CollectionSpec, Float32, Index, IndexUnavailableError, View, at_once
from indexers.chunk import Chunker
from indexers.filter import Filter, to_json
from indexers.point import check_groups, checked_metadata
from models.base import Embedder, GenerationOptions, Generator
from models.markers import MarkerFilter
from server.answerable import answerability, threshold_for
from server.base import (
    Answer,
    AnswerEvent,
    AnswerRequest,
    Changes,
    Collection,
    ConflictError,
    ContextPassage,
    ContextTooLongError,
    DocumentPatch,
    InvalidRequestError,
    NamespaceState,
    NotFoundError,
    SearchHit,
    SearchRequest,
    SearchResult,
    TextDelta,
    is_readable,
)
from server.cache import Beneath, Cache
from server.catalog import Catalog
from server.cite import cite
from server.commit import Writer
from server.context import assemble
from server.delete import Deleted, delete_matching, delete_named
from server.fetch import Sources
from server.generate import Generation, generate, options_of, or_fallback, room_for_passages
from server.group import BeforeCommit
from server.ingest import Ingestion, OnProgress, Receipt, Target
from server.originals import Originals
from server.prompt import REFUSAL, build_prompt, is_refusal
from server.rank import Chunks, Ranker, Ranking
from server.rerank import Reranking
from server.retrieve import in_time
from server.settings import Settings
from server.share import Share
from server.telemetry import Trace

MAX_NAMESPACES = 8  # of one search


@dataclass(frozen=True, slots=True)
class Models:
    """The models a pipeline works with; `fallback` answers when `generator` does not."""

    embedder: Embedder
    reranking: Reranking | None
    generator: Generator
    fallback: Generator


class Pipeline:
    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        index: Index,
        *,
        writer: Writer,
        models: Models,
        chunker: Chunker,
        shared_cache: Beneath[Ranking] | None = None,
        share: Share | None = None,
        originals: Originals | None = None,
    ) -> None:
        """Without `originals`, no bytes of what is ingested are kept; without `share`, no answer is held for it."""
        self.settings, self.catalog, self.index = settings, catalog, index
        self.writer, self.models, self.chunker, self.originals = writer, models, chunker, originals
        self.ranker = Ranker(settings, catalog, index, embedder=models.embedder, reranking=models.reranking)
        self.share = share or Share(0.0)
        self.rankings: Cache[Ranking] = Cache(settings.cache_entries, settings.cache_ttl_s, beneath=shared_cache)

    # --- search ----------------------------------------------------------------------------------------------------

    async def search(self, request: SearchRequest, trace: Trace | None = None) -> SearchResult:
        """The chunks that answer a question best, best first. Two catalog reads.

        Raises NotFoundError (collection, namespace), ConflictError (another embedding model), InvalidRequestError.
        """
        result, _ = await self._search(self._normalised(request), trace or Trace())
        return result

    def _normalised(self, request: SearchRequest) -> SearchRequest:
        return replace(request, question=normalise(request.question, self.settings.max_question_chars))

    async def _search(self, request: SearchRequest, trace: Trace) -> tuple[SearchResult, list[NamespaceState]]:
        """The result of a normalised request, and the namespaces at the commits it was read at."""
        began = time.monotonic()
        with self.share.computing():
            with trace.span("states"):
                states = await self._states(request)
            read: Chunks = {}
            is_computed = False

            async def rank() -> Ranking:
                nonlocal is_computed
                is_computed = True
                return await self.ranker.rank(request, states, read, trace)

            try:
                ranking, cached = await self.rankings.get(
                    self._key(request, states), rank, keep=lambda ranking: not ranking.degraded
                )
            except IndexUnavailableError:
                await self._states(request)  # raises NotFoundError if a namespace was dropped meanwhile
                raise
            with trace.span("read"):
                hits = await self._hits(ranking, request, states, read)
        if is_computed:
            with trace.span("held", outside=True):
                await self.share.hold(began)
        result = SearchResult(
            hits=hits,
            commits={state.namespace.name: state.commit for state in states},
            reranker=ranking.reranker,
            degraded=ranking.degraded,
            cached=cached,
            timings_ms=trace.timings_ms(),
            query_tokens=ranking.query_tokens,
            best_dense=ranking.best_dense,
            best_rerank=ranking.best_rerank,
        )
        return result, states

    async def _states(self, request: SearchRequest) -> list[NamespaceState]:
        """The namespaces asked, each at the commit the search reads: the present one, or `as_of`."""
        if not 1 <= len(set(request.namespaces)) <= MAX_NAMESPACES:
            raise InvalidRequestError(f"{len(request.namespaces)} namespaces: name 1 to {MAX_NAMESPACES}", "namespaces")
        names = list(dict.fromkeys(request.namespaces))
        states = await self.catalog.snapshot(request.collection, names)
        if any(state.embedder != self.models.embedder.info.fingerprint for state in states.values()):
            self._check_embedder(await self.catalog.collection(request.collection))
        if request.as_of is None:
            return [states[name] for name in names]
        if len(names) > 1:
            raise InvalidRequestError("as_of goes with one namespace: each has commit numbers of its own", "as_of")
        state = states[names[0]]
        oldest = await self.catalog.oldest_commit(state.id)
        if not oldest <= request.as_of <= state.commit:
            raise InvalidRequestError(f"as_of={request.as_of}: kept are commits {oldest} to {state.commit}", "as_of")
        return [replace(state, commit=request.as_of)]

    async def _hits(
        self, ranking: Ranking, request: SearchRequest, states: Sequence[NamespaceState], read: Chunks
    ) -> tuple[SearchHit, ...]:
        """Entries with their text, each checked once more against the document's present groups."""
        unread = {entry.id: entry.namespace for entry in ranking.entries if entry.id not in read}
        if unread:
            read.update(await self.catalog.chunks_at(states, unread))
        return tuple(
            SearchHit(read[entry.id], entry.namespace, entry.score, entry.ranks)
            for entry in ranking.entries
            if entry.id in read and is_readable(read[entry.id].groups, request.groups)
        )

    def _key(self, request: SearchRequest, states: Sequence[NamespaceState]) -> tuple[object, ...]:
        """All that shapes a ranking; the namespaces' commits make a stale entry unfindable."""
        return (
            request.collection,
            tuple((state.id, state.commit, state.committed_at) for state in states),
            request.groups,
            request.question,
            repr(to_json(request.filter)) if request.filter is not None else None,
            request.top_k,
            self.ranker.fingerprint(request),
        )

    # --- answer ----------------------------------------------------------------------------------------------------

    async def answer(self, request: AnswerRequest, trace: Trace | None = None) -> AsyncGenerator[AnswerEvent, None]:
        """Stream an answer: TextDeltas as they are made, then one Answer whose text is the deltas joined.

        Raises ContextTooLongError before anything is sent; closing the iterator stops the generation.
        """
        trace = trace or Trace()
        request = replace(request, search=self._normalised(request.search))
        with trace.span("search"):
            result, states = await self._search(request.search, trace)
        generation = Generation(self.models.generator, degraded=list(result.degraded))
        options = options_of(request, self.settings, self.models.generator.info)
        passages: tuple[ContextPassage, ...] = ()
        if result.hits and answerability(result) >= threshold_for(self.models.generator.info):
            vectors = asyncio.create_task(self._vectors(result, states, generation.degraded))
            try:
                with trace.span("context"):
                    passages = await or_fallback(
                        generation,
                        self.models.fallback,
                        options,
                        lambda generator: self._context(request, result, vectors, options, generator=generator),
                    )
            finally:
                vectors.cancel()
            if not passages:
                generation.degraded.append(
                    f"context: no passage fits into context_tokens={self.settings.context_tokens}"
                )
        text = ""
        if passages:
            prompt = build_prompt(request.search.question, passages, request.messages[:-1])
            markers = MarkerFilter(len(passages))
            with trace.span("generate", outside=True):
                written = generate(generation, self.models.fallback, prompt, options, streamed=request.streamed)
                async with aclosing(written) as deltas:
                    async for delta in deltas:
                        if piece := markers.feed(delta.text) + (markers.finish() if delta.finish_reason else ""):
                            text += piece
                            yield TextDelta(piece)
        else:
            text = REFUSAL
            yield TextDelta(text)
        refused = is_refusal(text)
        with trace.span("cite"):
            citations, sentences = await cite(text, () if refused else passages, self.models.embedder)
        yield Answer(
            text=text,
            citations=citations,
            sentences=sentences,
            passages=passages,
            refused=refused,
            finish_reason="length" if generation.finish_reason == "length" else "stop",
            usage=generation.usage,
            generator=generation.generator.info.name,
            search=result,
            degraded=tuple(generation.degraded),
            timings_ms=trace.timings_ms(),
        )

    async def _context(
        self,
        request: AnswerRequest,
        result: SearchResult,
        vectors: "asyncio.Task[dict[str, Float32]]",
        options: GenerationOptions,
        *,
        generator: Generator,
    ) -> tuple[ContextPassage, ...]:
        """The passages that fit: min(context_tokens, what the generator has left beside prompt and answer).

        Raises ContextTooLongError if what it has left is too little for any: without passages nothing is asked.
        """
        room = await room_for_passages(generator, request, options)
        context = await assemble(
            result.hits,
            vectors=await vectors,
            question=request.search.question,
            budget_tokens=min(self.settings.context_tokens, room),
            count_tokens=generator.count_tokens,
            share=self.settings.context_share,
            near_duplicate=self.settings.near_duplicate,
        )
        if not context.passages and room < self.settings.context_tokens:
            raise ContextTooLongError(
                f"beside the question, the history and max_tokens={options.max_tokens}, {generator.info.name!r} has "
                f"{room} tokens left, too few for any passage: shorten them, or ask for less"
            )
        return context.passages

    async def _vectors(
        self, result: SearchResult, states: Sequence[NamespaceState], degraded: list[str]
    ) -> dict[str, Float32]:
        """The stored vectors of the hits, by chunk id, at the commits the hits were found at.

        The context does without those that the index does not give; `degraded` gets a line then.
        """
        vectors: dict[str, Float32] = {}
        for state in states:
            ids = [hit.chunk.id for hit in result.hits if hit.namespace == state.namespace.name]
            fetched = self.index.fetch(state.namespace, ids, View(state.commit))
            try:
                points = await in_time(f"vectors of {state.namespace}", self.settings.leg_timeout_s, fetched)
            except IndexUnavailableError as exc:
                degraded.append(str(exc))
            else:
                vectors.update((id_, point.vector) for id_, point in points.items())
        return vectors

    # --- documents -------------------------------------------------------------------------------------------------

    async def ingest(
        self,
        sources: Sources,
        target: Target,
        on_progress: OnProgress | None = None,
        before_commit: BeforeCommit = at_once,
    ) -> Receipt:
        """Read, cut, embed and commit sources; the receipt counts them and names what could not be read.

        Raises InvalidPointError for a target whose metadata or groups no index keeps.
        """
        checked_metadata(target.metadata)
        check_groups(target.groups or ())
        await self._ensure_collection(target.collection)
        ingestion = Ingestion(
            self.settings,
            self.catalog,
            self.writer,
            embedder=self.models.embedder,
            chunker=self.chunker,
            target=target,
            on_progress=on_progress or (lambda _: None),
            before_commit=before_commit,
            give_way=self.share.give_way,
            originals=self.originals,
        )
        with self.share.ingesting():
            return await ingestion.run(sources)

    async def patch(self, namespace: NamespaceState, patch: DocumentPatch) -> int:
        """Add to a document's metadata, or replace its groups; its text and vectors stay. Returns the commit.

        Raises InvalidPointError for what no index keeps; NotFoundError, GoneError.
        """
        checked = replace(patch, metadata=checked_metadata(patch.metadata))
        check_groups(patch.groups or ())
        return await self.writer.commit(namespace, Changes(patches=(checked,)))

    async def delete_named(
        self, namespace: NamespaceState, document_ids: Sequence[str], groups: frozenset[str] | None
    ) -> Deleted:
        """Delete documents of a namespace with every version, vector and original, those that somebody in `groups` may
        read; unknown ids are ignored."""
        return await delete_named(self.writer, namespace, document_ids, groups)

    async def delete_matching(
        self, namespace: NamespaceState, wanted: Filter, groups: frozenset[str] | None
    ) -> Deleted:
        """Delete the documents of a namespace whose metadata meet a filter and that somebody in `groups` may read."""
        return await delete_matching(self.catalog, self.writer, namespace, wanted, groups)

    async def drop(self, collection: str, namespace: str) -> None:
        """Delete a namespace with all that is in it, for good. Raises NotFoundError."""
        await self.writer.drop(await self.catalog.droppable(collection, namespace))

    async def _ensure_collection(self, name: str) -> None:
        """Create the collection with this server's models, or check that it was made with them."""
        embedder = self.models.embedder.info
        try:
            collection = await self.catalog.collection(name)
        except NotFoundError:
            spec = CollectionSpec(name, embedder.dimension, language=self.settings.language)
            collection = Collection(spec, embedder.name, embedder.fingerprint, self.chunker.fingerprint)
            await self.catalog.create_collection(collection)
        self._check_embedder(collection)

    def _check_embedder(self, collection: Collection) -> None:
        if collection.embedder_fingerprint != self.models.embedder.info.fingerprint:
            raise ConflictError(
                f"collection {collection.spec.name!r} was embedded by {collection.embedder!r}, this server runs "
                f"{self.models.embedder.info.name!r}: start it with embedder={collection.embedder!r}, or ingest into "
                "another collection"
            )


def normalise(question: str, max_chars: int) -> str:
    """NFC, white space folded, ends trimmed; case stays. Raises InvalidRequestError if empty or too long."""
    folded = " ".join(unicodedata.normalize("NFC", question).split())
    if not folded:
        raise InvalidRequestError("the question is empty: ask something", "question")
    if len(folded) > max_chars:
        raise InvalidRequestError(f"the question has {len(folded)} characters: at most {max_chars}", "question")
    return folded
