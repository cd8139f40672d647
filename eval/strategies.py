"""Ways of cutting a document beside refdesk's own, in its chunks: windows of tokens, and what other libraries cut.

Each gives spans of the text; titles and token ids are added as refdesk's chunker adds them: the cuts alone differ.
"""

import hashlib
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from eval.peers import peer_python
from indexers.base import Chunk, Document
from indexers.chunk import Chunker, ChunkSettings
from models.base import Tokenizer

Spans = list[tuple[int, int]]
Cut = Callable[[str], Spans]

_TITLE_TOKENS = 8  # of the room a chunk has, kept for the title


class SpanChunker(Chunker):
    """A Chunker that cuts where it is told to; `name` tells its fingerprint apart."""

    def __init__(self, tokenizer: Tokenizer, settings: ChunkSettings, special_tokens: int, cut: Cut, name: str) -> None:
        super().__init__(tokenizer, settings, special_tokens)
        self._cut_spans, self._tokens = cut, tokenizer
        self._room = settings.max_tokens - special_tokens
        self.fingerprint = hashlib.sha256(f"{name} {self.fingerprint}".encode()).hexdigest()

    def chunk_batch(self, documents: Sequence[Document]) -> list[list[Chunk]]:
        """The chunks of each document; a span with no visible character is left out."""
        return [self._chunks(document) for document in documents]

    def _chunks(self, document: Document) -> list[Chunk]:
        [title] = self._tokens.encode_batch([f"{document.title}\n"])
        spans = [span for span in map(_trimmed(document.text), self._cut_spans(document.text)) if span[0] < span[1]]
        encoded = self._tokens.encode_batch([document.text[start:end] for start, end in spans])
        room = self._room - len(title)
        return [
            Chunk(
                index=index,
                start=start,
                end=end if len(tokens) <= room else start + int(tokens.offsets[room - 1][1]),
                context=f"{document.title}\n",
                page=None,
                heading_path=(),
                token_ids=np.concatenate((title.ids, tokens.ids[:room])),
                token_count=min(len(tokens), room),
            )
            for index, ((start, end), tokens) in enumerate(zip(spans, encoded, strict=True))
        ]


def windows(tokenizer: Tokenizer, size: int, overlap: float) -> Cut:
    """`size` tokens, then the next `size`, of which `overlap` are the same: no look at the text at all."""

    def cut(text: str) -> Spans:
        [tokens] = tokenizer.encode_batch([text])
        offsets, step = tokens.offsets, max(1, round(size * (1 - overlap)))
        last = max(1, len(offsets) - round(size * overlap))
        return [
            (int(offsets[first][0]), int(offsets[min(first + size, len(offsets)) - 1][1]))
            for first in range(0, last, step)
        ]

    return cut


def library(name: str, tokenizer: Path, size: int, overlap: float) -> Cut:
    """A splitter of another library (`chunk_peer.py` names them), in an environment of its own, counting our tokens."""
    python = peer_python("text-splitters")

    def cut(text: str) -> Spans:
        asked = {
            "name": name,
            "tokenizer": str(tokenizer),
            "size": size,
            "overlap": round(size * overlap),
            "text": text,
        }
        script = str(Path(__file__).with_name("chunk_peer.py"))
        done = subprocess.run(
            [str(python), "-P", script], input=json.dumps(asked), capture_output=True, text=True, check=True
        )
        return [(int(start), int(end)) for start, end in json.loads(done.stdout)]

    return cut


def room_for_text(max_tokens: int, special_tokens: int) -> int:
    """Tokens of a chunk's own text where the title is to have room."""
    return max_tokens - special_tokens - _TITLE_TOKENS


def _trimmed(text: str) -> Callable[[tuple[int, int]], tuple[int, int]]:
    def trim(span: tuple[int, int]) -> tuple[int, int]:
        start, end = span
        kept = text[start:end].lstrip()
        return end - len(kept), end - len(kept) + len(kept.rstrip())

    return trim
