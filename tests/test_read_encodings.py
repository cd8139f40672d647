"""Encodings: which one a file is read in, whatever it claims, and what is said of bytes that fit none."""

import json

import pytest

from indexers.canonical import canonical
from indexers.read import ReadResult, read
from tests.test_read import MIB, read_one

RUSSIAN = "Насос необходимо обслуживать каждые шесть месяцев."
SAMPLES = {
    "latin-1": "Müller wohnt in Köln. Die Straße ist schön, aber größer als früher.",
    "cp1252": "The “quick” brown fox — it’s said — jumps over the lazy dog for £5 and more.",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy. Děkuji za vaši odpověď.",
    "cp1251": RUSSIAN,
    "koi8-r": RUSSIAN,
    "cp1253": "Η αντλία πρέπει να συντηρείται κάθε έξι μήνες από τον τεχνικό.",
    "shift_jis": "ポンプは半年ごとに点検してください。漏れがあれば直ちに報告すること。",
    "euc-jp": "ポンプは半年ごとに点検してください。漏れがあれば直ちに報告すること。",
    "gb18030": "水泵必须每六个月维修一次。如果发现泄漏，请立即报告给主管部门。",
    "big5": "水泵必須每六個月維修一次。如果發現洩漏，請立即報告給主管部門。",
    "euc-kr": "펌프는 육 개월마다 점검해야 합니다. 누출이 있으면 즉시 보고하십시오.",
    "utf-8": "Zoe\u0308, 梅雨 🦆",
    "utf-8-sig": "Ein BOM davor",
    "utf-16": "免疫系统紊乱可导致",
    "utf-16-le": "no mark before this",
    "utf-32": "🦆",
}


@pytest.mark.parametrize("encoding", SAMPLES)
def test_text_encodings(encoding: str) -> None:
    words = SAMPLES[encoding]
    assert read_one(words.replace(" ", "\r\n", 1).encode(encoding), "a.txt").text == canonical(
        words.replace(" ", "\n", 1)
    )


@pytest.mark.parametrize("lines", [40, 4000])  # 2 KB, and 172 KB
@pytest.mark.parametrize("end", ["\n", " "])
@pytest.mark.parametrize("encoding", [name for name in SAMPLES if not name.startswith("utf")])
def test_an_encoding_is_found_wherever_its_first_letter_stands(encoding: str, end: str, lines: int) -> None:
    plain = f"Nothing but ASCII, whatever the code page.{end}" * lines
    words = SAMPLES[encoding]
    for text in (plain + words + end + plain, plain + words):
        assert words in read_one(text.encode(encoding), "a.txt").text


@pytest.mark.parametrize("lines", [3, 4000])
def test_what_a_mail_says_of_its_charset_counts(lines: int) -> None:
    header = "Received: from a machine in another place\n" * lines
    words = "Pompa powinna być serwisowana co sześć miesięcy przez technika, który najpierw wymieni uszczelkę."
    mail = f"From: a@b\n{header[:400]}Content-Type: text/plain; charset=ISO-8859-2\n{header}\n{words}"
    assert words in read_one(mail.encode("iso-8859-2"), "a.txt").text


@pytest.mark.parametrize("uri", ["a.txt", "a.md", "a.csv", "a.html", "a.json", "a.jsonl"])
def test_stray_bytes_are_replaced_and_reported(uri: str) -> None:
    data = b'{"text": "' + ("梅雨前線" * 20).encode() + b"\xff" + b' end"}'
    result = read(data, uri, max_bytes=MIB)
    assert "梅雨前線\ufffd end" in result.documents[0].text
    (report,) = result.failures
    assert (report.source, report.reason) == (result.documents[0].uri, "corrupt")
    assert report.detail.startswith("1 places are not utf-8")


# --- HTML ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "encoding", "media_type"),
    [
        ('<meta charset="windows-1251">', "cp1251", None),
        ('<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">', "koi8-r", None),
        ('<meta charset="koi8-r">', "cp1251", "text/html; charset=windows-1251"),  # the transport goes before
        ('<meta charset="koi8-r">', "utf-8-sig", None),  # and a byte order mark before everything
        ('<meta charset="no-such-thing">', "utf-8", None),
        ('<meta charset="utf-16">', "utf-8", None),  # whoever reads this does not read UTF-16
        ('<meta charset="utf-16le">', "cp1251", None),
        ('<meta charset="unicode">', "ascii", None),
        ("", "utf-16", None),
        ("", "cp1251", None),
    ],
)
def test_html_encodings(head: str, encoding: str, media_type: str | None) -> None:
    page = f"<html><head>{head}</head><body><p>{RUSSIAN}</p></body></html>"
    for end in ("", "\n"):  # any even number of bytes may be UTF-16
        data = (page + end).encode(encoding, "xmlcharrefreplace")
        assert read_one(data, "a.html", media_type).text == RUSSIAN


@pytest.mark.parametrize("declared", ["utf-16", "UTF-16BE", "UTF-32"])
def test_xhtml_that_declares_what_it_is_not_is_read_as_what_it_is(declared: str) -> None:
    page = f'<?xml version="1.0" encoding="{declared}"?><html><body><p>{RUSSIAN}</p></body></html>'
    assert read_one(page.encode(), "a.xhtml").text == RUSSIAN


# --- JSONL ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1251"])
def test_jsonl_in_other_encodings(encoding: str) -> None:
    data = "\n".join(json.dumps({"text": RUSSIAN, "id": str(n)}, ensure_ascii=False) for n in range(3)).encode(encoding)
    result: ReadResult = read(data, "a.jsonl", max_bytes=MIB)
    assert [d.text for d in result.documents] == [RUSSIAN] * 3


def test_stray_bytes_in_jsonl_are_reported_beside_their_line() -> None:
    good = json.dumps({"text": "Überblick 概要 " * 9}, ensure_ascii=False).encode()
    result = read(good + b"\n" + good.replace(b"\xe6", b"\xff", 1) + b"\n" + good, "a.jsonl", max_bytes=MIB)
    assert [d.uri for d in result.documents] == ["a.jsonl#1", "a.jsonl#2", "a.jsonl#3"]
    assert ["\ufffd" in d.text for d in result.documents] == [False, True, False]
    assert [f.source for f in result.failures] == ["a.jsonl#2"]


def test_stray_bytes_of_another_encoding_are_reported_beside_their_line() -> None:
    lines = ['{"text": "梅雨"}', '{"text": "梅\ud800雨"}', "{bad", '{"text": "雨"}']
    result = read("\n".join(lines).encode("utf-16", "surrogatepass"), "a.jsonl", max_bytes=MIB)
    assert [(d.uri, d.text) for d in result.documents] == [
        ("a.jsonl#1", "梅雨"),
        ("a.jsonl#2", "梅\ufffd雨"),
        ("a.jsonl#4", "雨"),
    ]
    assert [f.source for f in result.failures] == ["a.jsonl#2", "a.jsonl#3"]
