"""Files that take the process that reads them with them: they are refused by name, and nothing else is harmed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexers.base import UnreadableError
from indexers.read import read
from indexers.readers import pdf
from indexers.readers.apart import Apart, ApartError, Bounds
from tests import make_files

MIB = 2**20
LIMITS = {"max_pages": 10, "max_chars": 10_000, "max_lines": 100}


def items(apart: Apart, data: bytes) -> list[object]:
    found: list[object] = []
    apart.run(data, LIMITS, found.append)
    return found


@pytest.fixture
def small() -> Iterator[Apart]:
    """pdfium in a process that may take little."""
    apart = Apart("indexers.readers.pdfium", Bounds(memory_bytes=300 * MIB, item_cpu_s=20.0, idle_s=20.0))
    yield apart
    apart.close()


def nested(levels: int, *, times: int = 10) -> bytes:
    """A PDF whose page draws a form, which draws another so many times, and so on: times ** (levels - 1) in all."""
    last = b"BT /F 12 Tf (boom) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /XObject << /X 6 0 R >> >> >>",
        b"<< /Length 5 >>\nstream\n/X Do\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for level in range(levels):
        is_last = level == levels - 1
        content = last if is_last else b"/X Do " * times
        resources = b"/Font << /F 5 0 R >>" if is_last else b"/XObject << /X %d 0 R >>" % (level + 7)
        header = b"<< /Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << %s >> /Length %d >>"
        objects.append(header % (resources, len(content)) + b"\nstream\n%s\nendstream" % content)
    data, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size, start = len(objects) + 1, len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return data + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, start)


def test_a_pdf_of_nested_forms_is_refused_and_the_next_one_is_read(
    small: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "_PDFIUM", small)
    assert "boom" in read(nested(2), "few.pdf", max_bytes=MIB).documents[0].text
    with pytest.raises(UnreadableError, match=r"corrupt.*takes more than 300 MiB of memory"):
        read(nested(9), "many.pdf", max_bytes=MIB)
    assert "boom" in read(nested(2), "few.pdf", max_bytes=MIB).documents[0].text


def test_a_page_that_takes_too_long_is_given_up() -> None:
    apart = Apart("indexers.readers.pdfium", Bounds(memory_bytes=4096 * MIB, item_cpu_s=0.2))
    with pytest.raises(ApartError, match=r"takes longer than 0\.2 s"):
        items(apart, nested(9))
    apart.close()


def test_a_process_killed_at_its_work_is_an_error_and_the_next_work_gets_another(small: Apart) -> None:
    def kill() -> None:
        while small._process is None:
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(small._process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ApartError, match="SIGKILL"):
        items(small, nested(9))
    killer.join()
    assert len(items(small, nested(1))) == 2  # its title, and a page


def test_a_process_without_work_ends_and_comes_again() -> None:
    apart = Apart("indexers.readers.pdfium", Bounds(idle_s=0.1))
    first = items(apart, nested(1))
    process = apart._process
    assert process is not None
    assert process.wait(10) == 0
    assert items(apart, nested(1)) == first
    assert apart._process is not process
    apart.close()


def test_what_a_library_throws_is_told_and_the_process_goes_on(small: Apart) -> None:
    with pytest.raises(ApartError, match="PdfiumError"):
        items(small, b"%PDF-1.7 and nothing else")
    process = small._process
    items(small, nested(1))
    assert small._process is process


def test_threads_take_turns(small: Apart) -> None:
    found: list[int] = []

    def run() -> None:
        found.append(len(items(small, nested(2))))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2, 2, 2, 2]


def test_a_file_may_take_so_long_in_all() -> None:
    apart = Apart("indexers.readers.pdfium", Bounds(cpu_s=0.0))
    with pytest.raises(ApartError, match="TimeoutError: longer than 0 s in all"):
        items(apart, nested(2))
    apart.close()


def test_a_signal_to_everything_leaves_the_process_to_its_parent(small: Apart) -> None:
    first = items(small, nested(2))
    process = small._process
    assert process is not None
    assert os.getpgid(process.pid) == process.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert items(small, nested(2)) == first
    assert small._process is process


def test_nothing_is_imported_from_the_folder_of_the_documents(
    small: Apart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("select.py", "orjson.py"):
        (tmp_path / name).write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert len(items(small, nested(1))) == 2


def test_work_that_was_not_heard_out_leaves_nothing_for_the_next(small: Apart) -> None:
    def refuse(_: object) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        small.run(nested(2), LIMITS, refuse)
    assert len(items(small, nested(1))) == 2


def test_without_a_process_the_file_is_set_aside_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "_PDFIUM", Apart("indexers.readers.pdfium"))
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(UnreadableError, match=r"no reader.*'/nowhere/python' cannot be started"):
        read(nested(1), "a.pdf", max_bytes=MIB)


def test_without_a_process_a_mail_waits_with_its_attachment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read without it, the mail would count as unchanged from then on."""
    monkeypatch.setattr(pdf, "_PDFIUM", Apart("indexers.readers.pdfium"))
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    mail = make_files.mail("s", "Text.", attachments=[("a.pdf", "application/pdf", nested(1))])
    with pytest.raises(UnreadableError, match=r"'a.eml'.*no reader.*'/nowhere/python' cannot be started"):
        read(mail, "a.eml", max_bytes=MIB)
