"""A checkpoint's tokenizer.json as the Tokenizer of models/base.py, and the special tokens its model expects.

Text enters, ids and code point offsets leave. Truncation and padding, which many tokenizer.json files switch on, are
switched off here: what is too long is for the caller to see, and padding is the batch's business.
"""

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers

from models.base import Int32, ModelCorruptError, Tokens
from models.priority import Priority, be_low, computing

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What goes around one text (`before` + ids + `after`) and between the two of a pair (`between`).

    `type_ids` are those of the four special runs and two texts of a pair: before, a, between, b, after.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    between: tuple[int, ...]
    pair_type_ids: tuple[int, int, int, int, int]

    @property
    def single(self) -> int:
        return len(self.before) + len(self.after)

    @property
    def pair(self) -> int:
        return self.single + len(self.between)


class CheckpointTokenizer:
    """Implements Tokenizer over a folder's tokenizer.json. Thread-safe: nothing is changed after construction.

    `lower_case` lowers the text first, as sentence-transformers' do_lower_case asks. Raises ModelCorruptError.
    """

    def __init__(self, path: Path, *, lower_case: bool = False) -> None:
        try:
            data = path.read_bytes()
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
        except Exception as exc:  # the library raises bare Exception for a file that it cannot parse
            raise ModelCorruptError(f"{str(path)!r} is no tokenizer.json: {exc}. Restore the model's folder.") from exc
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if lower_case:
            steps = [tokenizers.normalizers.Lowercase(), self._tokenizer.normalizer]
            self._tokenizer.normalizer = tokenizers.normalizers.Sequence([step for step in steps if step is not None])
        self.vocabulary_size = int(self._tokenizer.get_vocab_size())
        self.fingerprint = hashlib.sha256(data + (b"lower" if lower_case else b"")).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids and code point offsets of each text, without special tokens; a lone surrogate reads as U+FFFD."""
        words = [_encodable(text) for text in texts]
        if len(words) == 1:  # a batch goes to the library's threads, where what is asked for would wait for bulk work
            encoded = [self._tokenizer.encode(words[0], add_special_tokens=False)]
        else:
            encoded = self._tokenizer.encode_batch(words, add_special_tokens=False)
        return [_tokens(one.ids, one.offsets) for one in encoded]

    def encode_ids(self, texts: Sequence[str]) -> list[Int32]:
        """Ids alone, for callers that need no offsets: faster than `encode_batch`."""
        if len(texts) == 1:
            return [np.array(self._tokenizer.encode(_encodable(texts[0]), add_special_tokens=False).ids, np.int32)]
        encoded = self._tokenizer.encode_batch_fast([_encodable(text) for text in texts], add_special_tokens=False)
        return [np.array(one.ids, np.int32) for one in encoded]

    def count(self, text: str) -> int:
        """Tokens of a text, special ones not counted."""
        return len(self.encode_ids([text])[0])

    def words(self) -> list[str]:
        """Every token as text, added ones included."""
        return list(self._tokenizer.get_vocab())

    def special_tokens(self) -> SpecialTokens:
        """The template that tokenizer.json's post-processor holds, read off one text and one pair."""
        single, pair = self._tokenizer.encode("a"), self._tokenizer.encode("a", "b")
        start, end = _content(single.sequence_ids, 0)
        (_, first), (second, _) = _content(pair.sequence_ids, 0), _content(pair.sequence_ids, 1)
        types = pair.type_ids
        return SpecialTokens(
            before=tuple(single.ids[:start]),
            after=tuple(single.ids[end:]),
            between=tuple(pair.ids[first:second]),
            pair_type_ids=(types[0], types[first - 1], types[first], types[second], types[-1]),
        )


def start_threads(tokenizer: CheckpointTokenizer, priority: Priority) -> None:
    """Let the library start its threads, one set a process, at this priority: only batches use them."""
    with ThreadPoolExecutor(1, "tokenizer", be_low) as starter, computing(priority):
        starter.submit(tokenizer.encode_ids, ["a", "b"]).result()


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and a passage as one sequence: ids (n,) and token type ids (n,), int32."""

    ids: Int32
    type_ids: Int32

    def __len__(self) -> int:
        return len(self.ids)


def encode_pairs(
    tokenizer: CheckpointTokenizer, special: SpecialTokens, query: str, passages: Sequence[str], max_tokens: int
) -> list[Pair]:
    """Each passage behind the question: before, question, between, passage, after.

    Of a pair too long the longer text is cut until it fits, then both alike: transformers' "longest_first", by which
    sentence-transformers' cross-encoders read.
    """
    room = max_tokens - special.pair
    whole, *encoded = tokenizer.encode_ids([query, *passages])
    pairs = []
    for passage in encoded:
        short, long = sorted((len(whole), len(passage)))
        if short + long > room:
            short = min(short, room // 2)
            long = room - short
        for_question, for_passage = (short, long) if len(whole) <= len(passage) else (long, short)
        parts = (special.before, whole[:for_question], special.between, passage[:for_passage], special.after)
        types = np.repeat(np.array(special.pair_type_ids, np.int32), [len(part) for part in parts])
        pairs.append(Pair(np.concatenate([np.asarray(part, np.int32) for part in parts]), types))
    return pairs


def _content(sequence_ids: Sequence[int | None], which: int) -> tuple[int, int]:
    """Where a text's own tokens are among those of a template, [start, end)."""
    positions = [i for i, sequence in enumerate(sequence_ids) if sequence == which]
    return positions[0], positions[-1] + 1


def _tokens(ids: list[int], offsets: list[tuple[int, int]]) -> Tokens:
    # fromiter over the flattened pairs is twice as fast as np.array over a list of tuples
    flat = np.fromiter(chain.from_iterable(offsets), np.int32, 2 * len(offsets))
    return Tokens(ids=np.array(ids, np.int32), offsets=flat.reshape(-1, 2))


def _encodable(text: str) -> str:
    """The text itself unless it holds a lone surrogate, which UTF-8 cannot carry; same length in code points."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)
