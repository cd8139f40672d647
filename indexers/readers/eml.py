"""EML: a mail's subject, sender, recipients, date and text, then each attachment under a heading, all one document.

Attachments with pages come last, so that no other text lies on a page of theirs.
"""

import time
from email.errors import MessageError

from indexers.base import UnreadableError
from indexers.readers.base import Extract, Extracts, Raw, map_errors, one_report
from indexers.readers.by_format import reader
from indexers.readers.encoding import decode
from indexers.readers.formats import EML, find_format
from indexers.readers.html import read_html
from indexers.readers.mime import Budget, Part, attached_message, found_parts, parse, unended, unflowed
from indexers.readers.text import replaced

ERRORS = (MessageError,)
_MOST_S = 600.0  # for the attachments of one mail, each of which has bounds of its own
_SHOWN_HEADERS = ("From", "To", "Cc", "Date")
# What signs or reports, for programs.
_PASSED_BY = frozenset({
    "application/pgp-signature", "application/pgp-keys", "application/pkcs7-signature",
    "application/x-pkcs7-signature", "message/delivery-status", "message/disposition-notification",
    "text/rfc822-headers", "text/css",
})  # fmt: skip
_MEDIA = frozenset({"image", "audio", "video", "font"})  # of a page: logos, mostly
_ENCRYPTED = frozenset({"application/pgp-encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"})


def read_eml(raw: Raw) -> Extracts:
    """One document. What cannot be read of it is reported beside it; a mail that is nothing else is refused."""
    with map_errors(raw, *ERRORS):
        mail = _Mail(raw)
        message = parse(raw.data, Budget(raw))
        mail.write(message)
        if mail.failures:
            yield one_report(raw, mail.failures)
        if not mail.builder.empty:
            yield Extract(mail.builder.text, mail.builder.marks, (message.header("subject"),))
        elif not mail.failures:
            raise raw.refuse("no text", "it has neither headers nor text")


class _Mail:
    def __init__(self, raw: Raw) -> None:
        self.raw, self.builder = raw, raw.builder()
        self.failures: list[UnreadableError] = []
        self._chars, self._until = 0, time.monotonic() + _MOST_S
        self._paged: list[tuple[str, list[Extract]]] = []

    def write(self, message: Part) -> None:
        self._message(message, 1)
        for name, extracts in self._paged:
            self._append(name, extracts, 2)
        self._check_end(message)

    def _message(self, message: Part, level: int, name: str = "") -> None:
        """A mail's headers and text, then what is attached, each a level below."""
        self.builder.heading(level, message.header("subject") or name)
        for header in _SHOWN_HEADERS:
            if words := message.header(header.lower()):
                self.builder.block(f"{header}: {words}", tight=True)
        attached: list[Part] = []
        self._body(message, level, attached)
        for number, part in enumerate(attached, start=1):
            self._attachment(part, part.name or f"Attachment {number}", level + 1)

    def _body(self, part: Part, level: int, attached: list[Part], *, seen: bool = False, is_form: bool = False) -> bool:
        """Write the text of a part that is no attachment, unless it was `seen` in another form; whether there is any.

        What hangs on it is put into `attached`; what `is_form` of the text is none of that, though it have a name.
        """
        kind = part.get_content_type()
        if part.get_content_maintype() == "multipart":
            return self._multipart(part, level, attached, seen=seen)
        if part.get_content_maintype() == "message" and part.children:
            if kind not in _PASSED_BY:
                attached.append(part)
        elif part.get_content_maintype() == "text" and not part.is_attached and (is_form or not part.name):
            return kind not in _PASSED_BY and not seen and self._text(part, kind, level)
        elif kind not in _PASSED_BY and not _is_inline(part):
            attached.append(part)
        return False

    def _multipart(self, part: Part, level: int, attached: list[Part], *, seen: bool) -> bool:
        kind, children = part.get_content_type(), part.children
        if kind == "multipart/encrypted":
            self._fail("encrypted", "its text is encrypted; save it decrypted")
            return False
        if not children:
            found = found_parts(part)
            if found is None:
                return not seen and self._text(part, "text/plain", level)
            self._fail("corrupt", "its parts do not begin where it says, and were looked for")
            self._check_end(found)
            children = found.children
        if kind == "multipart/alternative":
            children.reverse()  # of equals the last is the richest
            for child in sorted(children, key=_preference):
                seen = self._body(child, level, attached, seen=seen, is_form=True) or seen
            return seen
        written = [self._body(child, level, attached, seen=seen) for child in children]
        return any(written)

    def _text(self, part: Part, kind: str, level: int) -> bool:
        data = part.data
        raw = Raw(data, "", self.raw.limits, part.charset_of(data))
        try:
            if kind == "text/html":
                for extract in self._read(read_html(raw)):
                    self.builder.append(extract.text, extract.marks, level)
                return True
            decoded = decode(raw)
        except UnreadableError as failure:
            if failure.reason not in ("no text", "empty"):
                self._set_aside(failure)
            return False
        for stray in replaced(raw, decoded):
            self._set_aside(stray)
        text = decoded.text.strip("\ufeff")
        if part.parameter("format").lower() == "flowed":
            text = unflowed(text, without_space=part.parameter("delsp").lower() == "yes")
        self.builder.block(text, strip=False)
        return bool(text.strip())

    def _attachment(self, part: Part, name: str, level: int) -> None:
        kind, data = part.get_content_type(), part.data
        if part.get_content_maintype() == "message" and part.children:
            self._message(attached_message(part), level, name)
            return
        if kind in _ENCRYPTED and part.parameter("smime-type") != "signed-data":
            self._fail("encrypted", f"its part {name!r} is encrypted; save it decrypted")
            return
        if self._chars > self.raw.limits.max_chars or time.monotonic() > self._until:
            self._fail("too large", f"its attachment {name!r}: those before it are too long, or took too long to read")
            return
        try:
            format = find_format(data, name, kind)
            is_mail = format is EML
            raw = Raw(data, name, self.raw.limits, part.charset_of(data))
            extracts = [] if is_mail else self._read(reader(format)(raw), name)
        except UnreadableError as failure:
            if failure.reason == "no reader":  # another time there is one, and then all of the mail is read
                raise self.raw.refuse(failure.reason, failure.detail) from failure
            self._set_aside(failure)
            return
        if is_mail:
            self._message(parse(data, part.budget, part.depth + 1), level, name)
        elif any(mark.kind == "page" for extract in extracts for mark in extract.marks):
            self._paged.append((name, extracts))
        else:
            self._append(name, extracts, level)

    def _read(self, items: Extracts, name: str = "") -> list[Extract]:
        extracts: list[Extract] = []
        for item in items:
            if isinstance(item, UnreadableError):
                self._set_aside(item)
                continue
            self._chars += len(item.text)
            if self._chars > self.raw.limits.max_chars:
                most = self.raw.limits.max_chars
                raise UnreadableError(name, "too large", f"with those before it it holds over {most} characters")
            extracts.append(item)
        return extracts

    def _append(self, name: str, extracts: list[Extract], level: int) -> None:
        """Write an attachment below its name, which is on the first of its pages."""
        first = next((mark for extract in extracts for mark in extract.marks if mark.kind == "page"), None)
        if first is not None:
            self.builder.page(first.level, first.text)
        self.builder.heading(level, name)
        for extract in extracts:
            if extract.fragment:  # of several documents in a file
                self.builder.heading(level + 1, next(filter(None, extract.titles), extract.fragment))
            marks = [mark for mark in extract.marks if mark is not first]
            self.builder.append(extract.text, marks, level + bool(extract.fragment))

    def _check_end(self, message: Part) -> None:
        if (last := unended(message)) is not None:
            self._fail("corrupt", f"its last part, {last.name or 'without a name'!r}, has no end: it may be cut short")

    def _set_aside(self, failure: UnreadableError) -> None:
        what = f"its attachment {failure.source!r}" if failure.source else "its text"
        self._fail(failure.reason, f"{what}: {failure.detail}")

    def _fail(self, reason: str, detail: str) -> None:
        self.failures.append(self.raw.refuse(reason, detail))


def _preference(part: Part) -> int:
    """The lower, the sooner it is read of alternatives: plain text, then a page, alone or with its pictures."""
    if part.get_content_type() == "text/plain":
        return 0
    return 1 if part.get_content_type() == "text/html" or part.children else 2


def _is_inline(part: Part) -> bool:
    """Whether it is a picture, or the like, within a page."""
    return part.get_content_maintype() in _MEDIA and (not part.is_attached or bool(part.header("content-id")))
