"""What an OpenSearch index of ours looks like: its template, its fields, and how texts become terms in each language.

A document is one version of a point: `i` its id, `b` born, `d` died, `g` who may see it, `k` its metadata's keywords,
`m` what is given back, `s` in a shared index the namespace; numbers and texts in fields of their own, never by
dynamic mapping, which would take a field's first type for all and refuse the second.
"""

from dataclasses import dataclass
from typing import Any, Literal

from indexers.base import CollectionSpec
from indexers.bm25 import K1, B, Bm25
from indexers.keywords import keyword

ID, BORN, DIED, GROUPS, KEYWORDS, REST, SPACE, TEXT = "i", "b", "d", "g", "k", "m", "s", "x"
NUMERIC = "n_"  # what the fields of numbers begin with
TEMPLATE_VERSION = 2  # a template of another version is replaced; one that an operator changed is left alone
MAX_NUMERIC_FIELDS = 1000  # of an index
MAX_SHARING = 500  # namespaces of a shared index, each with a text field of its own
FREQUENCY_UNIT = 1000  # frequencies over length norms are kept as whole numbers of thousandths
FREQUENCY_MARK = "|"  # between a term and its frequency
_BM25 = "refdesk_bm25"  # over the lengths that the cluster counts and keeps in a byte
_NORMED = "refdesk_normed"  # over frequencies that the length norm is in already
_OTHER_FIELDS = 100  # room for the fields above, and for an operator's

Analysis = Literal["refdesk", "opensearch"]

# The analysers that OpenSearch is built with. The other languages of the embedded profile have none: their texts are
# cut into lower-case words.
_BUILT_IN = (
    "arabic basque bengali catalan danish dutch english finnish french german greek hungarian indonesian italian "
    "norwegian portuguese romanian russian spanish swedish turkish"
)
_ANALYSERS = {"chinese": "cjk", "japanese": "cjk", **{language: language for language in _BUILT_IN.split()}}


@dataclass(frozen=True, slots=True)
class Analyser:
    """How a namespace's texts become terms: here, as in the embedded profile, or in the cluster. Kept in the directory:
    it stays what it was when the namespace was made."""

    analysis: Analysis
    language: str

    @classmethod
    def of(cls, spec: CollectionSpec, analysis: Analysis) -> "Analyser":
        """Raises IndexerError for a language that the embedded profile does not know either."""
        Bm25(spec.language)
        return cls(analysis, spec.language)

    @property
    def name(self) -> str:
        """The analyser that the cluster applies to what we send."""
        return _NORMED if self.analysis == "refdesk" else _ANALYSERS.get(self.language, "standard")


def numeric_field(field: str) -> str:
    """The field of the numbers of a metadata field: any name fits, and none of a user's is a field name here."""
    return NUMERIC + keyword(field)


def text_mapping(analyser: Analyser) -> dict[str, Any]:
    """Terms with their frequencies, no positions: half the size, and there are no phrase queries.

    Of texts that are cut here, frequencies come with the length norm in them, so that the formula has the embedded
    profile's: Lucene's own would be the length in one byte, over an average that moves with every document."""
    is_ours = analyser.analysis == "refdesk"
    scoring = {"similarity": _NORMED, "norms": False} if is_ours else {"similarity": _BM25}
    return {"type": "text", "analyzer": analyser.name, "index_options": "freqs", **scoring}


def template(prefix: str) -> dict[str, Any]:
    """The index template of all our indices. Numbers of shards and replicas come with each index from the settings."""
    settings = {
        "refresh_interval": "-1",  # a flush refreshes: searches see whole commits anyway
        "translog.durability": "request",
        "mapping.total_fields.limit": MAX_NUMERIC_FIELDS + MAX_SHARING + _OTHER_FIELDS,
        "similarity": {
            _BM25: {"type": "BM25", "k1": K1, "b": B},
            _NORMED: {"type": "BM25", "k1": K1 * FREQUENCY_UNIT, "b": 0},
        },
        "analysis": {
            "filter": {_NORMED: {"type": "delimited_term_freq", "delimiter": FREQUENCY_MARK}},
            "analyzer": {_NORMED: {"type": "custom", "tokenizer": "whitespace", "filter": [_NORMED]}},
        },
    }
    properties = {
        **{name: {"type": "keyword"} for name in (ID, GROUPS, KEYWORDS, SPACE)},
        **{name: {"type": "long"} for name in (BORN, DIED)},
        REST: {"type": "keyword", "index": False, "doc_values": False},
    }
    return {
        "index_patterns": [f"{prefix}-own-*", f"{prefix}-shared-*"],
        "version": TEMPLATE_VERSION,
        "template": {
            "settings": {"index": settings},
            "mappings": {"dynamic": "strict", "properties": properties},
        },
    }


DIRECTORY = {
    "mappings": {
        "dynamic": "strict",
        "properties": {
            **{name: {"type": "keyword"} for name in ("key", "collection", "alias")},
            **{
                name: {"type": "keyword", "index": False, "doc_values": False}
                for name in ("name", "text_field", "analysis", "language")
            },
            "is_shared": {"type": "boolean"},
        },
    },
}
