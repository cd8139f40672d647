"""PDF: printed lines with geometry, which a process of its own reads, to paragraphs and headings by layout."""

from indexers.base import UnreadableError
from indexers.readers.apart import Apart, ApartError, NoProcessError
from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.layout import write_pages
from indexers.readers.printed import Line, Page

_PDFIUM = Apart("indexers.readers.pdfium")
_SHOWN_PAGES = 20  # of those that cannot be loaded, in the report


def read_pdf(raw: Raw) -> Extracts:
    """One document with a mark for each page that has text, and for headings told by their type size.

    Encrypted files that want a password are refused as "encrypted", scans without a text layer as "no text". Pages that
    cannot be loaded are reported beside the document.
    """
    title, pages, lost = _read_pages(raw)
    with map_errors(raw):
        if lost:
            yield _report(raw, lost, len(pages) + len(lost))
        builder = raw.builder()
        write_pages(pages, builder)
        if builder.empty:
            raise raw.refuse("no text", f"none of its {len(pages)} pages has a text layer; run it through OCR first")
        first = next((m.text for m in builder.marks if m.kind == "heading" and m.start < 2000), None)
        yield Extract(builder.text, builder.marks, (title, first))


def _report(raw: Raw, lost: list[int], count: int) -> UnreadableError:
    shown = ", ".join(map(str, lost[:_SHOWN_PAGES])) + (", …" if len(lost) > _SHOWN_PAGES else "")
    return raw.refuse("corrupt", f"{len(lost)} of its {count} pages cannot be loaded: {shown}; save it anew")


def _read_pages(raw: Raw) -> tuple[str, list[Page], list[int]]:
    """The title, the pages, and the numbers (from 1) of those that cannot be loaded."""
    limits = {"max_pages": raw.limits.max_pages, "max_chars": raw.limits.max_chars, "max_lines": raw.limits.max_lines}
    title, pages, lost, refused = "", list[Page](), list[int](), list[UnreadableError]()

    def take(item: object) -> None:
        nonlocal title
        match item:
            case {"page": {"number": number, "height": height, "lines": lines}}:
                pages.append(Page(number, height, tuple(Line(**line) for line in lines)))
            case {"lost": number}:
                lost.append(number)
            case {"title": title}:
                pass
            case {"refused": [reason, detail]}:
                refused.append(raw.refuse(reason, detail))

    try:
        _PDFIUM.run(raw.data, limits, take)
    except ApartError as exc:
        raise raw.refuse("corrupt", f"it {exc}; save it anew") from exc
    except NoProcessError as exc:
        raise raw.refuse("no reader", f"PDFs are read in a process of their own, and {exc}; ingest it again") from exc
    if refused:
        raise refused[0]
    if not pages:
        raise raw.refuse("corrupt", "none of its pages can be loaded")
    return title, pages, lost
