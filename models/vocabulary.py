"""The tokenizers of models that run elsewhere: read from their folder, a tokenizer.json, or OpenAI's .tiktoken file."""

from pathlib import Path

from models.base import ModelNotFoundError
from models.checkpoint import read_text_config
from models.remote_embedder import LocalPart
from models.tokenizer import CheckpointTokenizer


def read_vocabulary(path: Path) -> CheckpointTokenizer:
    """A vocabulary to count with. Raises ModelNotFoundError, ModelCorruptError."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ModelNotFoundError(f"{str(file)!r} is not there: name the model's folder or its tokenizer.json")
    return CheckpointTokenizer(file)


def read_local_part(path: Path) -> LocalPart:
    """What an embedder's folder, or a vocabulary alone, says of the texts that its server takes."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_dir():
        return LocalPart(read_vocabulary(file))
    text = read_text_config(path)
    tokenizer = CheckpointTokenizer(file, lower_case=text.lower_case)
    prefix = tokenizer.count(text.passage_prefix.rstrip())
    return LocalPart(
        tokenizer,
        special_tokens=tokenizer.special_tokens().single + prefix,
        max_tokens=text.max_tokens,
        query_prefix=text.query_prefix,
        passage_prefix=text.passage_prefix,
    )
