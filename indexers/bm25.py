"""BM25 as sparse vectors: a text's terms with their saturated weights, a question's with their counts.

score(q, d) = Σ_t count(t, q) · idf(t) · tf (k1 + 1) / (tf + k1 (1 − b + b · |d| / avgdl)), Robertson and Zaragoza 2009,
with Lucene's idf, ln(1 + (N − n + ½) / (n + ½)). The tokens are the engine's, so that every index agrees on them.
"""

import math
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import qdrant_edge as engine

from indexers.base import Float32, IndexerError, Int32

K1 = 1.2
B = 0.75
AVERAGE_LENGTH = 100.0  # terms left of a 220-token chunk; SciFact's nDCG@10 moves by 0.002 between 64 and 256
_COUNTING = 1e9  # with b = 0, tf (k1 + 1) / (tf + k1) is tf itself as k1 grows: the engine then hands out plain counts
# Scripts that put no space around a number.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
# Digits that stand by themselves: "2024", "9001" of "ISO-9001", but none of "KB5034441", which is a word.
_NUMBER = re.compile(rf"(?:(?<![^\W_])|(?<=[{_UNSPACED}]))\d+(?:(?![^\W_])|(?=[{_UNSPACED}]))")
_LETTERS = "zq"  # begin no word


@dataclass(frozen=True, slots=True)
class Terms:
    """A text as terms: ids (n,) int32, distinct, hashed by the engine; weights (n,) float32."""

    ids: Int32
    weights: Float32

    def __len__(self) -> int:
        return len(self.ids)


def idf(documents: int, containing: int) -> float:
    """Inverse document frequency of a term that `containing` of `documents` texts hold; never negative.

    Both count every stored version: dead ones until they are swept, and in the engine swept ones until the shard is
    next opened. An exact count costs a search 2 to 6 ms at 100,000 points, and replacing documents leaves the ratio
    about as it was.
    """
    return math.log(1 + (documents - containing + 0.5) / (containing + 0.5))


class Bm25:
    """Cuts texts into stemmed terms without stopwords; `language` "none" does neither. Finds words of any script, and
    numbers."""

    def __init__(self, language: str) -> None:
        plain = language == "none"
        config = engine.Bm25Config(
            k=_COUNTING,
            b=0.0,
            tokenizer=engine.TokenizerType.Multilingual,
            language=None if plain else language,
            stemmer=engine.DisabledStemmer() if plain else None,
            stopwords=engine.StopwordsSet() if plain else None,
        )
        try:
            self._model = engine.Bm25(config)
        except ValueError as exc:
            raise IndexerError(
                f"language {language!r} has no stopwords here; use one such as 'english' or 'german', or 'none'"
            ) from exc

    def question(self, text: str) -> Terms:
        """The question's terms; a weight is how often the term occurs."""
        vector = self._model.embed_document(_NUMBER.sub(_as_word, text))
        return Terms(np.array(vector.indices, np.int32), np.rint(np.array(vector.values, np.float32)))

    def document(self, text: str) -> Terms:
        """The text's terms with their weights, which a question's terms times idf are multiplied with."""
        terms = self.frequencies(text)
        return Terms(terms.ids, (terms.weights * (K1 + 1) / (terms.weights + K1)).astype(np.float32))

    def frequencies(self, text: str) -> Terms:
        """The text's terms; a weight is how often the term occurs, tf, over the text's length norm: with tf' = tf /
        (1 − b + b · |d| / avgdl) the formula's fraction is tf' (k1 + 1) / (tf' + k1)."""
        terms = self.question(text)
        norm = 1 - B + B * float(terms.weights.sum()) / AVERAGE_LENGTH
        return Terms(terms.ids, (terms.weights / norm).astype(np.float32))


def _as_word(number: re.Match[str]) -> str:
    """Digits behind letters, since the engine's tokeniser passes over what has none; whatever script they are of."""
    return f" {_LETTERS}{''.join(str(unicodedata.decimal(digit)) for digit in number.group())} "
