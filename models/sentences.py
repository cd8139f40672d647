"""Where the sentences of a text begin and end: code points [start, end), without the white space around them.

One cutter for answers and for passages, so that what an extractive answer quotes is what a citation points at.
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A full stop after one of these ends no sentence, whatever follows.
_TITLES = _words(
    "mr mrs ms dr prof rev fr hon gen col maj capt lt sgt gov sen rep pres st mt ft vs cf e.g i.e viz al ca approx "
    "resp art arts sec secs ch chap fig figs eq eqs ref refs tab p pp pt vol vols ed eds trans nr nos bzw z.b d.h u.a "
    "usw abs gem inkl exkl zzgl ggf evtl sog vgl ziff lit rn kap bd aufl hrsg str mio mrd tsd "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
# These end a sentence only if the next word looks like the beginning of one.
_OPEN = _words("etc inc ltd co corp jr sr ph.d m.d b.a m.a a.m p.m u.s u.k u.n e.u d.c b.c a.d bros dept est")
_STARTERS = _words(
    "the a an in it its he she they we you this that these those there his her their our my your but and or so as at "
    "on by for from with when where while after before since if although however some many most all each both another "
    "such what which who how why then thus today"
)

# After the number of a day, as German writes it, these go on: "am 3. Oktober".
_MONTHS = _words("januar jänner februar märz april mai juni juli august september oktober november dezember")

_LIST_ITEM = r"(?:[-*+•‣◦–—]|\d{1,3}[.)]|[A-Za-z][.)]|\([A-Za-z\d]{1,3}\))[ \t]"
# A blank line, or a line end before a list item, a heading, a quotation or a table row, or after a heading.
_BLOCK_BREAK = re.compile(rf"\n[ \t]*(?:\n\s*)+|\n(?=[ \t]*(?:{_LIST_ITEM}|#{{1,6}}[ \t]|>|\|))|\f")
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t][^\n]*(?:\n|$)")
_LEADING_ITEM = re.compile(rf"\s*{_LIST_ITEM}")

_CLOSERS = "\"'”’»›)\\]}」』）】》〉＂"
_MARKERS = r"(?:[ \t]?\[\d{1,2}(?:,[ \t]?\d{1,2})*\])*"  # the citation after a sentence is the sentence's own
_TERMINATOR = re.compile(
    rf"(?P<wide>[。！？｡]++[{_CLOSERS}]*{_MARKERS})"
    rf"|(?<![.!?…؟۔।॥])[.!?…؟۔।॥]++[{_CLOSERS}]*+{_MARKERS}(?=\s|$)"
)
_ENDED = re.compile(rf"[.!?…؟۔।॥。！？｡][{_CLOSERS}]*{_MARKERS}\Z")
_WORD_BEFORE = re.compile(r"[^\W_](?:[^\W_]|[.&'’-](?=[^\W_]))*\Z")
_NEXT_WORD = re.compile(r"[\s\"'“‘«‹(\[]*([^\W_]+(?:['’][^\W_]+)?)?")
_LOOKBACK = 24  # longer than any abbreviation


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences of `text`, in order, disjoint; together they hold every character but white space.

    Abbreviations, initials, decimals and list numbers end no sentence; CJK full stops need no space after them; a blank
    line, a list item and a heading always begin one. A citation marker after a full stop belongs to the sentence
    before it. Linear in the length of the text.
    """
    spans: list[tuple[int, int]] = []
    for start, end in _blocks(text):
        begin = start
        item = _LEADING_ITEM.match(text, start, end)
        for match in _TERMINATOR.finditer(text, item.end() if item else start, end):
            if match.group("wide") or _ends_sentence(text, begin, match, end):
                _append_stripped(spans, text, begin, match.end())
                begin = match.end()
        _append_stripped(spans, text, begin, end)
    return spans


def is_ended(text: str) -> bool:
    """Whether a text ends as a sentence does: with a full stop or the like, and what closes and cites after it."""
    return _ENDED.search(text) is not None


def _blocks(text: str) -> list[tuple[int, int]]:
    """Spans no sentence crosses: paragraphs, list items, headings, table rows."""
    blocks: list[tuple[int, int]] = []
    start = 0
    cuts = [(m.start(), m.end()) for m in _BLOCK_BREAK.finditer(text)]
    for stop, following in [*cuts, (len(text), len(text))]:
        heading = _HEADING.match(text, start, stop)
        if heading and heading.end() < stop:
            blocks.append((start, heading.end()))
            start = heading.end()
        blocks.append((start, stop))
        start = following
    return blocks


def _ends_sentence(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    """Whether a full stop, question or exclamation mark before white space ends the sentence begun at `begin`."""
    following = _NEXT_WORD.match(text, match.end(), end)
    word = (following.group(1) if following else None) or ""
    if not word and (following is None or not text[following.end() : following.end() + 1].strip()):
        return True
    if word and word[0].islower():
        return False
    if not match.group().startswith(".") or match.group().startswith(".."):
        return True
    before = _WORD_BEFORE.search(text[max(begin, match.start() - _LOOKBACK) : match.start()])
    if before is None:
        return True
    last = before.group().casefold()
    if last in _TITLES or (last == "no" and word[:1].isdigit()):
        return False
    if last.isdecimal() and len(last) <= 2 and word.casefold() in _MONTHS:
        return False
    if len(last) == 1 and len(word) == 1 and following is not None and text.startswith(".", following.end(), end):
        return False  # "z. B."
    is_initial = len(last) == 1 and before.group().isupper()
    is_initialism = "." in last and all(len(part) == 1 for part in last.split("."))
    if is_initial or is_initialism or last in _OPEN:
        return word.casefold() in _STARTERS
    return True


def _append_stripped(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append((start, end))
