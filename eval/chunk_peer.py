"""Runs in the environment of the peers' text splitters: a request as JSON on stdin, spans as JSON on stdout."""

import json
import sys


def langchain(text: str, tokenizer: object, size: int, overlap: int) -> list[tuple[int, int]]:
    """RecursiveCharacterTextSplitter with its own separators, counting tokens.

    Its own `add_start_index` takes the overlap for characters, and misses where a chunk begins: looked for here.
    """
    from langchain_text_splitters import RecursiveCharacterTextSplitter  # type: ignore[import-not-found,unused-ignore]

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=size,
        chunk_overlap=overlap,
        length_function=lambda part: len(tokenizer.encode(part, add_special_tokens=False)),  # type: ignore[attr-defined]
    )
    spans: list[tuple[int, int]] = []
    start = -1
    for chunk in splitter.split_text(text):
        start = text.index(chunk, start + 1)
        spans.append((start, start + len(chunk)))
    return spans


def semantic(text: str, tokenizer: object, size: int, overlap: int) -> list[tuple[int, int]]:
    """semantic-text-splitter: the highest level of sentences, lines and paragraphs that fits."""
    from semantic_text_splitter import TextSplitter  # type: ignore[import-not-found,unused-ignore]

    splitter = TextSplitter.from_huggingface_tokenizer(tokenizer, size, overlap)
    return [(start, start + len(chunk)) for start, chunk in splitter.chunk_indices(text)]


SPLITTERS = {"langchain": langchain, "semantic-text-splitter": semantic}


def main() -> None:
    from tokenizers import Tokenizer

    asked = json.load(sys.stdin)
    tokenizer = Tokenizer.from_file(asked["tokenizer"])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    json.dump(SPLITTERS[asked["name"]](asked["text"], tokenizer, asked["size"], asked["overlap"]), sys.stdout)


if __name__ == "__main__":
    main()
