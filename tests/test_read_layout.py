"""Printed lines to text: what is a running head, and which lines printing wrapped."""

from indexers.canonical import TextBuilder
from indexers.readers.layout import write_pages
from indexers.readers.printed import Line, Page


def test_rows_of_a_table_are_no_running_heads() -> None:
    """Rows of one wording, or of numbers alone, in the margin of each page at the same height."""
    pages = [
        Page(n, 800, tuple(
            Line(text, False, 50, 790 - 15 * row, 500, 800 - 15 * row, 10)
            for row, text in enumerate(
                ["Price list, page " + str(n), f"{n},50 {n * 7}", f"{10 * n + 1} Screw {n},10", *["Filler words."] * 42,
                 f"{10 * n + 2} Screw {n},20", f"{n * 13 % 7} / {n * n}", "1.1.2024", f"- {n + 4} -"]
            )
        ))
        for n in range(1, 7)
    ]  # fmt: skip
    builder = TextBuilder(10**6)
    write_pages(pages, builder)
    text = builder.text
    for n in range(1, 7):
        for row in (f"{n},50 {n * 7}", f"{10 * n + 1} Screw {n},10", f"{10 * n + 2} Screw {n},20",
                    f"{n * 13 % 7} / {n * n}"):  # fmt: skip
            assert row in text.split("\n")
    assert [text.count(head) for head in ("Price list", "1.1.2024", "- 5 -", "- 6 -")] == [1, 1, 1, 0]


def test_a_heading_that_printing_wrapped_is_one() -> None:
    """24 points over 12: its lines stand twice as far apart as the body's."""
    words = "The pump is serviced every year, its seal every two years, and the log is kept for ten years by"
    body = [Line(words, False, 50, 600 - 12 * row, 500, 610 - 12 * row, 10) for row in range(20)]
    head = [
        Line("Maintenance of pumps and seals in the", False, 50, 700, 490, 724, 24, True),
        Line("northern plants", False, 50, 671, 230, 695, 24, True),
        Line("Second edition", False, 50, 630, 220, 654, 24, True),
    ]
    builder = TextBuilder(10**6)
    write_pages([Page(1, 800, (*head, *body))], builder)
    headings = [mark.text for mark in builder.marks if mark.kind == "heading"]
    assert headings == ["Maintenance of pumps and seals in the northern plants", "Second edition"]
    assert builder.text.count("\n\n") == 2
