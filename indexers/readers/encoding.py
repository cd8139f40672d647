"""Bytes to text: byte order mark, declared charset, strict UTF-8, then detection. Bytes in no encoding are refused."""

import codecs
import re
from dataclasses import dataclass

import chardet

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
# Of code pages that fit a text equally well, which short ones often do, the commoner one is meant; one that the file
# names itself, in a mail's header say, need fit it nearly as well as the best.
# Python's codecs for names and literals: no text is stored in them, and one takes the square of a text's length.
_OF_PROGRAMS = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"})
_COMMON = ("cp1252", "cp1251", "cp1250")
_EQUAL, _CLAIMED = 0.985, 0.8
# What is looked for: what browsers know (WHATWG Encoding Standard), and the commonest pages of DOS and the old Mac.
_KNOWN = (
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874",
    "iso8859-1", "iso8859-2", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-9", "iso8859-13",
    "iso8859-15", "koi8-r", "koi8-u", "cp866", "cp437", "cp850", "cp852", "mac-roman", "mac-cyrillic",
    "cp932", "shift_jis_2004", "euc_jis_2004", "gb18030", "hz", "big5hkscs", "cp949", "euc_kr", "iso2022_kr",
    "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-7",
)  # fmt: skip
_SAMPLE_BYTES = 1 << 17
_JAPANESE = b"\x1b$B"  # two bytes a character from here on, in ISO-2022-JP
_LEAD_BYTES = 512
# What may stand inside a character: a sample is cut beside other bytes (line ends, spaces, commas), and halves none.
_INNER_BYTES = bytes(range(0x30, 0x100))
# One sentence in another script, in a long text in English, must not be judged by the English: long runs of ASCII are
# cut to their ends. NUL stays: it tells that this is no such text.
_ASCII_RUN = re.compile(rb"([\x01-\x7f]{32})[\x01-\x7f]+([\x01-\x7f]{32})")
_CLAIM, _CLAIM_BYTES = re.compile(rb"(?:charset|coding)[:= ]{1,10}[\"']?([a-zA-Z0-9_-]+)", re.IGNORECASE), 8192
_CONTROL = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")


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
    if _JAPANESE in raw.data and (decoded := _strict(raw.data, "iso2022_jp")):  # in seven bits, as mails were
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
    return None if name.replace("-", "_") in _OF_PROGRAMS else name


def _strict(data: bytes, encoding: str) -> Decoded | None:
    try:
        return Decoded(data.decode(encoding), encoding)
    except UnicodeError:
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
    likely: dict[str, float] = {}  # the likeliest first
    if b"\0" not in sample:
        found = chardet.detect_all(
            sample,
            ignore_threshold=True,
            prefer_superset=False,
            compat_names=False,
            max_bytes=len(sample),
            include_encodings=_KNOWN,
        )
        for one in found:
            if name := _codec(one["encoding"]):
                likely.setdefault(name, one["confidence"])
    if not likely:
        raise raw.refuse("type mismatch", "its bytes are text in no encoding; if it is text, save it as UTF-8")
    best, most = next(iter(likely.items()))
    claims = [_codec(label.decode()) for label in _CLAIM.findall(raw.data[:_CLAIM_BYTES])]
    for names, share in ((claims, _CLAIMED), (_COMMON, _EQUAL)):
        for name in names:
            if name is not None and likely.get(name, 0.0) >= share * most:
                return _replacing(raw.data, name)
    return _replacing(raw.data, best)


def _sample(data: bytes) -> bytes:
    """What the encoding is found by: the file, of a long one 128 KiB from the first place that is not UTF-8.

    Such a place is always in it, so that a file beyond ASCII is found to be neither "ascii" nor "utf-8".
    """
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
    return _ASCII_RUN.sub(rb"\1\2", data)


def _checked(raw: Raw, decoded: Decoded) -> Decoded:
    """Refuse noise that happens to decode: text has no control characters, bar a stray one."""
    text = decoded.text
    if decoded.replaced > 0.1 * len(text):
        raise raw.refuse("type mismatch", f"{decoded.replaced} places are not {decoded.encoding}, so it is not text")
    odd = len(_CONTROL.findall(text[:1_000_000])) + text.count("\0", 0, 1_000_000)
    if odd > 2 and odd > min(len(text), 1_000_000) * 0.005:
        raise raw.refuse("type mismatch", f"it holds {odd} control characters, so it is not text")
    return decoded
