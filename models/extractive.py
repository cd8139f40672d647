"""Answers without a language model: the passages' own sentences that support the question best, each with its number.

Support of a sentence s of the passage of rank r (from 1), for a question q:
    similarity(q, s) + OVERLAP · overlap(q, s) + PRIOR / r
similarity: MaxSim a question token (models/late_interaction.py), or half the cosine where the embedder has no token
vectors; overlap: the share of q's terms in s, weighted by rarity in the passages. Constants: docs/answers.md.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain

import numpy as np

from models.base import (
    Delta,
    Embedder,
    Float32,
    GenerationOptions,
    GeneratorInfo,
    Message,
    ModelUnavailableError,
    Passage,
    PassageEmbedding,
    Prompt,
    QueryEmbedding,
)
from models.late_interaction import max_sim
from models.overlap import UNSPACED, overlap
from models.refusal import REFUSAL
from models.saying import Piece, say
from models.sentences import is_ended, sentence_spans
from models.shown import shown, without_fences

# Measured on one half of 1,000 SQuAD questions, reported on the other (python -m eval.extraction).
OVERLAP, PRIOR = 0.4, 0.05
SHORTLIST, SHORTLIST_PRIOR = 6, 0.1  # sentences embedded; all of them (53 on average) find no more answers
MARGIN, MAX_SENTENCES = 0.1, 3  # a further sentence is given if its support is this close to the best
REFUSAL_THRESHOLD = 0.55  # refuses 0.93 of another corpus's questions and 0.04 of SQuAD's own

_CONTEXT_LENGTH = 1_000_000  # nothing here reads a prompt as a whole; memory is the limit
_WORD = re.compile(r"\w+")
_BULLET = re.compile(r"\s*(?:[-*+•‣◦–—>]|\d{1,3}[.)])\s")
_RULE = re.compile(r"\|?(?:\s*:?-+:?\s*\|)+(?:\s*:?-+:?)?")  # below a Markdown table's header
_ORDINAL = re.compile(r"^[ \t]*(\d{1,3})[.)][ \t]+", re.MULTILINE)
_TELLING = re.compile(r"[^\s\d.)].*\d|[:：]\s*\w")  # a number that is not the heading's own ("3.2 Service")
_NUMBERED = re.compile(r"\s*\d{1,2}(?:\.\d{1,2}){1,5}\.?\s+[^\W\d_]")  # "2.1 Introduction"
_HEADING_WORDS = 10
_LONGEST_WORDS = 80


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of passage `number` (from 1). `lead`: the heading or question right before it, which it answers."""

    text: str
    number: int
    lead: str = ""

    @property
    def scored(self) -> str:
        return f"{self.lead} {self.text}" if self.lead else self.text


@dataclass(frozen=True, slots=True)
class Supported:
    sentence: Sentence
    support: float


class ExtractiveGenerator:
    """Implements Generator over an embedder, which stays the caller's to close."""

    def __init__(self, embedder: Embedder, *, refusal_threshold: float = REFUSAL_THRESHOLD) -> None:
        fingerprint = f"extractive-2:{refusal_threshold}:{embedder.info.fingerprint}"
        self.info = GeneratorInfo("extractive", fingerprint, _CONTEXT_LENGTH, is_language_model=False)
        self._embedder, self._refusal_threshold = embedder, refusal_threshold
        self._closed = False

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the embedder's tokenizer."""
        self._check_open()
        count = self._embedder.tokenizer.count  # one by one: a batch would wait for what an ingestion cuts
        return await asyncio.to_thread(lambda: [count(text) for text in texts])

    async def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of all messages; there is no template."""
        return sum(await self.count_tokens([m.content for m in messages]))

    async def generate(self, prompt: Prompt, options: GenerationOptions) -> AsyncGenerator[Delta, None]:
        """The best sentences of the passages, best first, streamed one by one; REFUSAL if the best is too weak."""
        self._check_open()
        prompt_tokens = await self.count_prompt_tokens(prompt.messages)
        pieces = self._pieces(prompt, options.max_tokens)
        async for delta in say(pieces, options, prompt_tokens=prompt_tokens, info=self.info):
            yield delta

    async def choose(self, prompt: Prompt) -> list[Supported]:
        """The sentences an answer would be made of, best first: 1 to MAX_SENTENCES, whatever their support."""
        considered = shortlist(prompt.question, split(prompt.passages))
        if not considered:
            return []
        sentences = [sentence for sentence, _ in considered]
        question, embeddings = await asyncio.gather(
            self._embedder.embed_queries([prompt.question]), self._embed([s.scored for s in sentences])
        )
        similarities = await asyncio.to_thread(_similarities, question[0], embeddings)
        supported = [
            Supported(sentence, float(similarity) + OVERLAP * share + PRIOR / sentence.number)
            for (sentence, share), similarity in zip(considered, similarities, strict=True)
        ]
        supported.sort(key=lambda s: (-s.support, s.sentence.number))
        return [s for s in supported[:MAX_SENTENCES] if s.support >= supported[0].support - MARGIN]

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ModelUnavailableError("generator 'extractive' was closed")

    async def _embed(self, texts: Sequence[str]) -> list[PassageEmbedding]:
        """Embeddings of sentences, of one longer than the model takes those of its beginning."""
        limit = self._embedder.info.max_tokens - self._embedder.info.special_tokens
        encode = self._embedder.tokenizer.encode_batch

        def cut() -> list[Passage]:
            return [Passage(text, encode([text])[0].ids[:limit]) for text in texts]

        return await self._embedder.embed_passages(await asyncio.to_thread(cut), urgent=True)

    async def _pieces(self, prompt: Prompt, max_tokens: int) -> AsyncGenerator[Piece, None]:
        chosen = await self.choose(prompt)
        texts = [f"{shown(s.sentence.text)} [{s.sentence.number}]" for s in chosen]
        if not chosen or chosen[0].support < self._refusal_threshold:
            texts = [REFUSAL]
        count = self._embedder.tokenizer.count
        space = ""
        for text in texts:
            tokens = count(text)
            fits = tokens <= max_tokens
            for part in [text] if fits else text.split(" "):  # of a sentence that does not fit, the words that do
                yield Piece(space + part, tokens if fits else count(part))
                space = " "
            max_tokens -= tokens


def split(passages: Sequence[str]) -> list[Sentence]:
    """The sentences of the passages in their order, each once; a heading, or a question asked in the text, leads the
    sentence after it and is none itself, unless it tells something ("Opening hours: 9 to 17"). The header of a Markdown
    table leads each of its rows."""
    sentences: list[Sentence] = []
    seen: set[str] = set()
    for number, passage in enumerate(passages, start=1):
        lead = header = ""
        texts = [part for start, end in sentence_spans(passage) for part in _parts(passage[start:end])]
        ordinals = {int(n) for n in _ORDINAL.findall(passage)}
        for text, following in zip(texts, chain(texts[1:], [""]), strict=False):
            is_row = text.lstrip().startswith("|")
            if is_row and _RULE.fullmatch(following.strip()):
                lead, header = "", f"{lead} {shown(text, end_stop=False)}".strip()
                continue
            header = header if is_row else ""
            leads = not is_row and (_asks_or_is_marked(text) or bool(following and not lead and _leads(text)))
            item = _without_ordinal(text, ordinals)
            key = " ".join(item.casefold().split())
            if key not in seen and _WORD.search(without_fences(item)) and (not leads or _tells(text)):
                seen.add(key)
                sentences.append(Sentence(item, number, lead or header))
            lead = f"{lead} {shown(text, end_stop=False)}".strip() if leads else ""
    return sentences


def _without_ordinal(text: str, ordinals: AbstractSet[int]) -> str:
    """A list's item without its number. It is a list if the passage has the number before or after it, too: a single
    one may be a date's ("3. Oktober")."""
    match = _ORDINAL.match(text)
    if match is None or ordinals.isdisjoint({int(match.group(1)) - 1, int(match.group(1)) + 1}):
        return text
    return text[match.end() :]


def _parts(sentence: str) -> list[str]:
    """A sentence as it is; what is too long for one (rows of a table, text without full stops) by lines, then words."""
    if len(sentence.split()) <= _LONGEST_WORDS:
        return [sentence]
    parts = []
    for line in sentence.splitlines():
        words = [match.span() for match in re.finditer(r"\S+", line)]
        for i in range(0, len(words), _LONGEST_WORDS):
            parts.append(line[words[i][0] : words[min(i + _LONGEST_WORDS, len(words)) - 1][1]])
    return parts


def shortlist(question: str, sentences: Sequence[Sentence]) -> list[tuple[Sentence, float]]:
    """The SHORTLIST sentences that share most with the question, each with its overlap, in the passages' order."""
    overlaps = overlap(question, [s.scored for s in sentences])
    worth = [share + SHORTLIST_PRIOR / s.number for share, s in zip(overlaps, sentences, strict=True)]
    best = sorted(range(len(sentences)), key=lambda i: (-worth[i], i))[:SHORTLIST]
    return [(sentences[i], overlaps[i]) for i in sorted(best)]


def _leads(text: str) -> bool:
    """Whether it is a question, or a heading as Markdown marks it or as its shortness tells."""
    if _asks_or_is_marked(text):
        return True
    words = len(UNSPACED.sub(" . ", text).split())  # where words have no space between them, every character counts
    return not is_ended(text) and not _BULLET.match(text) and words <= _HEADING_WORDS


def _tells(heading: str) -> bool:
    """Whether a short line may be an answer, and not only what leads to one: with a number after words, or words after
    a colon; in a script without spaces between words, a space does as a colon."""
    if _asks_or_is_marked(heading):
        return False
    return _TELLING.search(heading) is not None or (UNSPACED.search(heading) is not None and len(heading.split()) > 1)


def _asks_or_is_marked(text: str) -> bool:
    if _NUMBERED.match(text) and not is_ended(text) and len(text.split()) <= _HEADING_WORDS:
        return True
    return text.rstrip().endswith(("?", "？")) or text.lstrip().startswith("#")


def _similarities(question: QueryEmbedding, sentences: Sequence[PassageEmbedding]) -> Float32:
    bits = [s.token_bits for s in sentences if s.token_bits is not None]
    if question.token_vectors is not None and len(bits) == len(sentences):
        return max_sim(question.token_vectors, bits)
    return (np.stack([s.vector for s in sentences]) @ question.vector / 2).astype(np.float32)
