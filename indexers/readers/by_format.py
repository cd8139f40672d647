"""A format's reader, whose libraries are imported when a first file needs them."""

from collections.abc import Callable

from indexers.readers.base import Extracts, Raw
from indexers.readers.formats import Format


def reader(format: Format) -> Callable[[Raw], Extracts]:
    """The function that reads a format."""
    match format.name:
        case "pdf":
            from indexers.readers.pdf import read_pdf

            return read_pdf
        case "docx":
            from indexers.readers.docx import read_docx

            return read_docx
        case "pptx":
            from indexers.readers.pptx import read_pptx

            return read_pptx
        case "xlsx":
            from indexers.readers.xlsx import read_xlsx

            return read_xlsx
        case "html":
            from indexers.readers.html import read_html

            return read_html
        case "markdown":
            from indexers.readers.markdown import read_markdown

            return read_markdown
        case "csv":
            from indexers.readers.csv import read_csv

            return read_csv
        case "json":
            from indexers.readers.json import read_json

            return read_json
        case "jsonl":
            from indexers.readers.jsonl import read_jsonl

            return read_jsonl
        case "eml":
            from indexers.readers.eml import read_eml

            return read_eml
        case "epub":
            from indexers.readers.epub import read_epub

            return read_epub
        case _:
            from indexers.readers.text import read_text

            return read_text
