"""Old answers stay checkable: a span of a stored text, and whether a citation still says what the text says."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from server.access import readable
from server.base import GoneError, InvalidRequestError, NotFoundError, Principal, StoredDocument
from server.catalog import Catalog


@dataclass(frozen=True, slots=True)
class TextSpan:
    """text == canonical_text[start:end] of a version."""

    document: StoredDocument
    version: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What a citation says: these words, or words of this sha256, stand at [start, end) of that version."""

    document_id: str
    version: str
    start: int
    end: int
    quote: str | None = None
    quote_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    status: Literal["verified", "mismatch", "gone", "not_found"]
    detail: str


async def read_span(
    catalog: Catalog,
    caller: Principal,
    document_id: str,
    *,
    version: str | None = None,
    start: int = 0,
    end: int | None = None,
) -> TextSpan:
    """A span of a retained version, under the document's present ACL.

    Raises NotFoundError (also for a document that the caller may not read), GoneError, InvalidRequestError.
    """
    _, document = await readable(catalog, caller, document_id)
    version = version or document.version  # by now another may be the present one
    text = await catalog.text(document_id, version, start, end)
    return TextSpan(document, version, start, start + len(text), text)


async def verify(catalog: Catalog, caller: Principal, claim: Claim) -> Verification:
    """Compare a citation with what is stored. A citation of a deleted document is `gone`."""
    if claim.quote is None and claim.quote_sha256 is None:
        raise InvalidRequestError("a citation needs its quote or its quote_sha256 to be verified", "quote")
    try:
        span = await read_span(
            catalog, caller, claim.document_id, version=claim.version, start=claim.start, end=claim.end
        )
    except GoneError as exc:
        return Verification("gone", str(exc))
    except NotFoundError as exc:
        return Verification("not_found", str(exc))
    except InvalidRequestError as exc:
        return Verification("mismatch", str(exc))
    same_words = claim.quote is None or claim.quote == span.text
    digest = hashlib.sha256(span.text.encode()).hexdigest()
    if same_words and claim.quote_sha256 in {None, digest}:
        return Verification("verified", "the stored text holds exactly these words there")
    return Verification("mismatch", f"the stored text reads otherwise there: its sha256 is {digest}")
