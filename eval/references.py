"""What sentence-transformers and transformers compute, stored for tests that run without either (and without torch).

`python -m eval.references` runs itself again in an environment with sentence-transformers (eval/peers.py) and writes
tests/references/models.npz: vectors of the built-in embedder and of each specimen of eval/checkpoints.py, and logits.
"""

import argparse
import importlib.metadata
import os
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from eval.checkpoints import SPECIMENS, Specimen, write_checkpoint
from eval.peers import ROOT, peer_python
from models.base import Float32
from models.store import ModelStore

TARGET = ROOT / "tests" / "references" / "models.npz"

TEXTS = (
    "How often must the Kestrel pump be serviced?",
    "The pump is serviced every year, in March; its seal every 2,000 hours.",
    "",
    " \n\t ",
    "a",
    "日本語のテキストと English words, mixed: 東京都の年間降水量は1500ミリです。",
    "Astral: 😀 𝒳𝓎𝓏 𐍈 👩‍👩‍👧 in a sentence about 🧪 cells.",
    "Ångström, naïve café, ﬁnancial, ＦＵＬＬＷＩＤＴＨ; Ελληνικά; עברית; العربية; हिन्दी",
    "0-dimensional biomaterials lack inductive properties [1, 2].",
    "x" * 150,
    "A line scan diffusion-weighted MRI sequence was applied to the cerebral white matter. " * 6,
    "the of and is in a how often must " * 28,
)
QUERIES = TEXTS[:2] + TEXTS[4:8]
PAIRS = tuple((query, passage) for query in (TEXTS[0], TEXTS[8], "", TEXTS[10]) for passage in (*TEXTS[1:9], TEXTS[10]))


def main() -> None:
    """Write the references, in the peer's environment; --peer-python names one that is there already."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--minilm", type=Path, help="compute here and now, with the built-in embedder's folder")
    arguments = parser.parse_args()
    if arguments.minilm:
        return _write(arguments.minilm)
    folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder").path
    python = peer_python("sentence-transformers", arguments.peer_python)
    command = [str(python), "-m", "eval.references", "--minilm", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return None


def _write(minilm: Path) -> None:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "numpy")]
    arrays: dict[str, Any] = {"versions": np.array(versions)}
    arrays["minilm"] = _vectors(minilm, 384)[0]
    with tempfile.TemporaryDirectory() as scratch:
        for specimen in SPECIMENS:
            folder = write_checkpoint(specimen, Path(scratch) / specimen.name)
            if specimen.labels:
                arrays[specimen.name] = _logits(folder, specimen)
            else:
                passages, queries = _vectors(folder, specimen.hidden_size)
                arrays[specimen.name], arrays[f"{specimen.name}.queries"] = passages, queries
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size} bytes, {', '.join(versions)}")


def _vectors(folder: Path, dimension: int) -> tuple[Float32, Float32]:
    sentence_transformers, torch = import_module("sentence_transformers"), import_module("torch")
    model = sentence_transformers.SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    passages, queries = model.encode_document(list(TEXTS)), model.encode_query(list(QUERIES))
    assert passages.shape == (len(TEXTS), dimension)
    return passages, queries


def _logits(folder: Path, specimen: Specimen) -> Float32:
    """(pairs, labels), each pair computed alone, so without padding, and cut as sentence-transformers cuts it."""
    torch, transformers = import_module("torch"), import_module("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    if not specimen.pooler:  # transformers would make up a pooler: the classifier is to read the first token's state
        model.bert.pooler = _first_token()
    rows = []
    for query, passage in PAIRS:
        options = {"truncation": "longest_first", "max_length": specimen.max_tokens, "return_token_type_ids": True}
        pair = tokenizer([query], [passage], return_tensors="pt", **options)  # bare, it takes "" for no passage at all
        with torch.no_grad():
            rows.append(model(**pair).logits[0].numpy())
    return np.stack(rows)


def _first_token() -> Any:
    torch = import_module("torch")
    module = torch.nn.Module()
    module.forward = lambda states: states[:, 0]
    return module


if __name__ == "__main__":
    main()
