"""Encodings: which one a file is read in, whatever it claims, and what is said of bytes that fit none."""

import json
import random

import pytest

from indexers.base import UnreadableError
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


LANGUAGES = [  # code pages, and what is said in one language
    (
        "cp1252",
        "Die Pumpe muß alle sechs Monate gewartet werden. Zuerst wird die Dichtung ausgetauscht, danach "
        "der Druck geprüft. Bei Lecks ist der leitende Ingenieur für Übergänge zu verständigen.",
    ),
    (
        "cp1252 mac_roman cp850",
        "Sehr geehrte Damen und Herren, die Rechnung über 250 Euro ist bis zum 3. März fällig. Mit "
        "freundlichen Grüßen, Ihre Geschäftsstelle in Zürich.",
    ),
    (
        "cp1252 mac_roman cp850",
        "La pompe doit être entretenue tous les six mois par un technicien qui remplace d'abord le joint,"
        " puis mesure la pression. Toute fuite doit être signalée immédiatement à l'ingénieur en chef.",
    ),
    (
        "cp1252",
        "La bomba debe revisarse cada seis meses; ¿quién cambia la junta? El técnico mide después la "
        "presión. Si observa una fuga, avise al ingeniero jefe, año tras año.",
    ),
    (
        "cp1252",
        "A bomba deve ser revista a cada seis meses por um técnico, que substitui primeiro a vedação e "
        "depois mede a pressão. Não continue a operação se houver fugas; informe a direção.",
    ),
    (
        "cp1252",
        "La pompa va revisionata ogni sei mesi; il tecnico sostituirà prima la guarnizione e poi misurerà"
        " la pressione. La qualità è più importante della velocità, perché così si evita ogni perdita.",
    ),
    (
        "cp1252",
        "Pumpen måste servas var sjätte månad av en tekniker som först byter tätningen och sedan mäter "
        "trycket. Läckage ska omedelbart anmälas till chefsingenjören.",
    ),
    (
        "cp1252",
        "Pumppu on huollettava puolen vuoden välein. Teknikko vaihtaa ensin tiivisteen ja mittaa sitten "
        "paineen. Vuodosta on heti ilmoitettava pääinsinöörille, eikä työtä saa jatkaa.",
    ),
    (
        "cp1252",
        "Pumpen skal efterses hver sjette måned af en tekniker, som først udskifter pakningen og derefter"
        " måler trykket. Læk skal straks meldes til overingeniøren på værket.",
    ),
    (
        "cp1252",
        "Dæluna skal þjónusta á sex mánaða fresti. Tæknimaðurinn skiptir fyrst um þéttinguna og mælir "
        "síðan þrýstinginn. Ef leki finnst skal láta yfirverkfræðinginn vita þegar í stað.",
    ),
    (
        "cp1250 iso8859_2",
        "Pompa powinna być serwisowana co sześć miesięcy przez technika, który najpierw wymieni "
        "uszczelkę, a potem zmierzy ciśnienie. Jeśli zauważysz wyciek, zgłoś go natychmiast głównemu "
        "inżynierowi.",
    ),
    (
        "cp1250 iso8859_2",
        "Čerpadlo musí být každých šest měsíců zkontrolováno technikem, který nejprve vymění těsnění a "
        "potom změří tlak. Zjistíte-li únik, oznamte jej ihned vedoucímu inženýrovi.",
    ),
    (
        "cp1250 iso8859_2",
        "Čerpadlo musí každých šesť mesiacov skontrolovať technik, ktorý najprv vymení tesnenie a potom "
        "zmeria tlak. Ak zistíte únik, ihneď to oznámte hlavnému inžinierovi.",
    ),
    (
        "cp1250 iso8859_2",
        "A szivattyút félévente kell karbantartani. A szerelő előbb kicseréli a tömítést, majd megméri a "
        "nyomást. Ha szivárgást észlel, azonnal értesítse a főmérnököt, és ne folytassa a működtetést.",
    ),
    (
        "cp1250 iso8859_2",
        "Crpku treba servisirati svakih šest mjeseci. Tehničar prvo mijenja brtvu, a zatim mjeri tlak. "
        "Ako primijetite curenje, odmah obavijestite glavnog inženjera i ne nastavljajte s radom.",
    ),
    (
        "cp1250 iso8859_2",
        "Pompa trebuie revizuită la fiecare şase luni de un tehnician, care înlocuieşte întâi garnitura "
        "şi apoi măsoară presiunea. Orice scurgere trebuie anunţată imediat inginerului şef.",
    ),
    (
        "cp1254 iso8859_9",
        "Pompa her altı ayda bir teknisyen tarafından bakıma alınmalıdır. Önce conta değiştirilir, sonra "
        "basınç ölçülür. Kaçak görülürse şef mühendise hemen haber verilmelidir; çalışmaya devam edilmez.",
    ),
    (
        "cp1251 koi8_r cp866",
        "Насос необходимо обслуживать каждые шесть месяцев. Сначала техник меняет прокладку, затем "
        "измеряет давление. О любой утечке следует немедленно сообщить главному инженеру.",
    ),
    (
        "cp1251 koi8_u",
        "Насос потрібно обслуговувати кожні шість місяців. Спочатку технік міняє прокладку, потім вимірює"
        " тиск. Про будь-який витік слід негайно повідомити головного інженера.",
    ),
    (
        "cp1253 iso8859_7",
        "Η αντλία πρέπει να συντηρείται κάθε έξι μήνες από τον τεχνικό, ο οποίος αλλάζει πρώτα τη φλάντζα"
        " και μετά μετρά την πίεση. Κάθε διαρροή αναφέρεται αμέσως στον αρχιμηχανικό.",
    ),
    (
        "cp1255",
        "יש לבצע תחזוקה למשאבה כל שישה חודשים. הטכנאי מחליף תחילה את האטם ולאחר מכן מודד את הלחץ. על כל "
        "דליפה יש לדווח מיד למהנדס הראשי.",
    ),
    (
        "cp1256",
        "يجب صيانة المضخة كل ستة أشهر من قبل فني يقوم أولا بتغيير الحشية ثم يقيس الضغط. يجب إبلاغ كبير "
        "المهندسين فورا عن أي تسرب.",
    ),
    (
        "cp1257",
        "Siurblį reikia prižiūrėti kas šešis mėnesius. Technikas pirmiausia pakeičia tarpiklį, o po to "
        "matuoja slėgį. Apie bet kokį nuotėkį nedelsiant praneškite vyriausiajam inžinieriui.",
    ),
    (
        "cp932 euc_jp iso2022_jp",
        "ポンプは半年ごとに点検してください。漏れがあれば直ちに報告すること。技術者がまず"
        "パッキンを交換し、その後圧力を測定します。",
    ),
    (
        "gb18030 gbk",
        "水泵必须每六个月维修一次。技术员首先更换密封垫，然后测量压力。如果发现泄漏，请立即报告给主管部门。",
    ),
    (
        "big5",
        "水泵必須每六個月維修一次。技術員首先更換密封墊，然後測量壓力。如果發現洩漏，請立即報告給主管部門。",
    ),
    (
        "cp949",
        "펌프는 육 개월마다 점검해야 합니다. 기술자가 먼저 패킹을 교체한 다음 "
        "압력을 측정합니다. 누출이 있으면 즉시 보고하십시오.",
    ),
    ("cp1252", "The pump leaks at the seal. We don’t know why; it’s the engineer’s task to find out."),
    ("cp1252", "It costs 1,250 € and 90 € more. Then it costs 1,250 € again, and 90 € more."),
    (
        "cp1252",
        "The pump’s price is £1,250 ± 5 %; it runs at 25 °C. See “Appendix” — the engineer’s note, §4.",
    ),
]


@pytest.mark.parametrize("where", ["alone", "beside English", "in a table"])
@pytest.mark.parametrize(
    ("encoding", "words"), [(encoding, words) for encodings, words in LANGUAGES for encoding in encodings.split()]
)
def test_a_code_page_is_told_by_its_language(encoding: str, words: str, where: str) -> None:
    text = {
        "alone": words,
        "beside English": f"The pump shall be serviced by a technician. {words} The pump shall be closed before it.",
        "in a table": "\n".join(f"{number},{word},{number * 3}" for number, word in enumerate(words.split(), start=1)),
    }[where]
    assert read_one(text.encode(encoding), "a.txt").text == canonical(text)


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


def test_noise_without_a_nul_is_no_text() -> None:
    noise = random.Random(0)
    refused = 0
    for _ in range(50):
        data = bytes(noise.choices(range(1, 256), k=2000))
        try:
            read_one(data, "a.txt")
        except UnreadableError:
            refused += 1
    assert refused == 50


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
