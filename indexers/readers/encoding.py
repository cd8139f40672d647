"""Bytes to text: byte order mark, declared charset, strict UTF-8, then detection. Bytes in no encoding are refused."""

import codecs
import re
from dataclasses import dataclass

import charset_normalizer

from indexers.readers.base import Raw

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What a label means where it is declared: the superset that programs write under that name (WHATWG Encoding Standard).
_LABELS = {
    "iso-8859-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252",
    "iso-8859-9": "cp1254", "shift_jis": "cp932", "shift-jis": "cp932", "x-sjis": "cp932", "sjis": "cp932",
    "windows-31j": "cp932", "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030",
    "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "big5": "big5hkscs", "x-cp1251": "cp1251", "win-1251": "cp1251",
    "utf-16": "utf-16-le", "unicode": "utf-16-le", "x-x-big5": "big5hkscs", "koi8-ru": "koi8-u",
}  # fmt: skip
# Short texts often fit several 8-bit code pages equally well: the commoner one is meant.
_COMMON = ("cp1252", "cp1251", "cp1250", "cp932", "gb18030", "big5", "cp949", "euc_jp", "cp1253", "cp1254", "koi8_r")
_SAMPLE_BYTES = 1 << 17
_LEAD_BYTES = 512
# What may stand inside a character: a sample is cut beside other bytes (line ends, spaces, commas), and halves none.
_INNER_BYTES = bytes(range(0x30, 0x100))
# The detector probes 512 bytes at five places: one sentence in another script would stand between them. Long runs of
# ASCII are cut to their ends. NUL stays: it tells that this is no such text.
_ASCII_RUN = re.compile(rb"([\x01-\x7f]{64})[\x01-\x7f]+([\x01-\x7f]{64})")
# What the detector takes for a file's own word on its charset, and where it looks for it.
_CLAIM, _CLAIM_BYTES = re.compile(rb"(?:charset|coding)[:= ]{1,10}[\"']?[a-zA-Z0-9_-]+", re.IGNORECASE), 8192
_CONTROL = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, the Python name of its encoding, and how many bytes stand as U+FFFD."""

    text: str
    encoding: str
    replaced: int = 0


def decode(raw: Raw, declared: str | None = None) -> Decoded:
    """Decode a text file. `declared` is the charset that the file claims, in ASCII; the transport's goes before it.

    A claim of an encoding in which ASCII is other bytes, such as UTF-16, is passed by: it could not be read in it.
    Raises UnreadableError("type mismatch") for bytes that are text in no encoding.
    """
    for bom, encoding in _BOMS:
        if raw.data.startswith(bom):
            return _checked(raw, _replacing(raw.data[len(bom) :], encoding))
    claimed = _codec(declared)
    if claimed and "<".encode(claimed) != b"<":
        claimed = None
    for known in (_codec(raw.charset), claimed):
        if known and (decoded := _strict(raw.data, known)):
            return _checked(raw, decoded)
    if decoded := _strict(raw.data, _wide(raw.data) or "utf-8"):
        return _checked(raw, decoded)
    if decoded := _mostly_utf8(raw.data):
        return _checked(raw, decoded)
    return _checked(raw, _detected(raw))


def _codec(label: str | None) -> str | None:
    if not label:
        return None
    label = label.strip().strip("\"'").lower()
    try:
        name = codecs.lookup(_LABELS.get(label, label)).name
        "".encode(name)  # Python's codecs also hold things that are no encodings, such as zip and rot13
    except (LookupError, ValueError):
        return None
    return name


def _strict(data: bytes, encoding: str) -> Decoded | None:
    try:
        return Decoded(data.decode(encoding), encoding)
    except UnicodeDecodeError:
        return None


def _replacing(data: bytes, encoding: str) -> Decoded:
    """Decode what decodes; the count is of replacement characters that the bytes themselves do not spell."""
    if strict := _strict(data, encoding):
        return strict
    text = data.decode(encoding, "replace")
    return Decoded(text, encoding, text.count("\ufffd"))


def _wide(data: bytes) -> str | None:
    """UTF-16 without a byte order mark shows in NULs at every other byte, at least where the text is Western."""
    sample = data[:4096]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(sample) < 8 or max(even, odd) < len(sample) * 0.2 or min(even, odd) > max(even, odd) * 0.1:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _mostly_utf8(data: bytes) -> Decoded | None:
    """UTF-8 with a few stray bytes: nine good characters beyond ASCII for every bad one."""
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    beyond = len(text) - len(text.encode("ascii", "ignore")) - bad
    return Decoded(text, "utf-8", bad) if beyond >= 9 * bad else None


def _detected(raw: Raw) -> Decoded:
    sample = _sample(raw.data)
    if b"\0" not in sample:
        matches = [match for match in charset_normalizer.from_bytes(sample) if not _is_half_width(str(match))]
        best = matches[0] if matches else None
        if best is not None:
            close = {
                m.encoding for m in matches if m.chaos <= best.chaos + 0.02 and m.coherence >= best.coherence - 0.1
            }
            encoding = next((name for name in _COMMON if name in close), best.encoding)
            return _replacing(raw.data, encoding)
    raise raw.refuse("type mismatch", "its bytes are text in no encoding; if it is text, save it as UTF-8")


def _sample(data: bytes) -> bytes:
    """What the encoding is found by: the file, of a long one 128 KiB from the first place that is not UTF-8.

    Such a place is always in it, so that a file beyond ASCII is found to be neither "ascii" nor "utf-8". What the file
    says of its charset, in a mail's header say, goes before it.
    """
    claims = b"".join(claim + b"\n" for claim in _CLAIM.findall(data[:_CLAIM_BYTES]))
    if len(data) > _SAMPLE_BYTES:
        try:
            data.decode("utf-8")
            bad = 0
        except UnicodeDecodeError as exc:
            bad = exc.start
        lead, rest = data[max(bad - _LEAD_BYTES, 0) : bad], data[bad : bad + _SAMPLE_BYTES]
        if bad > _LEAD_BYTES:
            lead = lead.lstrip(_INNER_BYTES)
        if bad + _SAMPLE_BYTES < len(data):
            rest = rest.rstrip(_INNER_BYTES) or rest
        data = lead + rest
    return claims + _ASCII_RUN.sub(rb"\1\2", data)


def _is_half_width(text: str) -> bool:
    """Whether the letters are half-width katakana: Cyrillic in KOI8 looks so in Shift-JIS, and nobody writes so."""
    beyond = sum(c > "\x7f" for c in text)
    return sum("\uff61" <= c <= "\uff9f" for c in text) > 0.3 * beyond > 0


def _checked(raw: Raw, decoded: Decoded) -> Decoded:
    """Refuse noise that happens to decode: text has no control characters, bar a stray one."""
    text = decoded.text
    if decoded.replaced > 0.1 * len(text):
        raise raw.refuse("type mismatch", f"{decoded.replaced} places are not {decoded.encoding}, so it is not text")
    odd = len(_CONTROL.findall(text[:1_000_000])) + text.count("\0", 0, 1_000_000)
    if odd > 2 and odd > min(len(text), 1_000_000) * 0.005:
        raise raw.refuse("type mismatch", f"it holds {odd} control characters, so it is not text")
    return decoded
