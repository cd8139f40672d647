"""Plain text in any common encoding: the text as it stands."""

from indexers.base import UnreadableError
from indexers.canonical import canonical
from indexers.readers.base import Extract, Extracts, Raw
from indexers.readers.encoding import Decoded, decode


def read_text(raw: Raw) -> Extracts:
    """One document, the whole file; bytes that had to be replaced are reported beside it."""
    decoded = decode(raw)
    yield from replaced(raw, decoded)
    text = canonical(decoded.text).strip("\n\f\v\ufeff \t")
    if not text:
        raise raw.refuse("empty", "it holds nothing but white space")
    yield Extract(text)


def replaced(raw: Raw, decoded: Decoded) -> list[UnreadableError]:
    """The report of stray bytes, if there were any."""
    if not decoded.replaced:
        return []
    return [raw.refuse("corrupt", f"{decoded.replaced} places are not {decoded.encoding}; U+FFFD stands there")]
