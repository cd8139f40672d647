"""What of an HTML page is read: questions on buttons, panels they open; nothing that is hidden from everyone."""

from tests.test_read import headings, read_one


def test_an_accordions_questions_and_answers_are_read() -> None:
    document = read_one(
        "<h2><button aria-controls='one'>Where is the <b>canteen</b>?</button></h2><div id=one hidden>Building 7.</div>"
        "<h2><span>When?</span> <button aria-expanded=false>At <svg><title>x</title></svg>noon?</button></h2>"
        "<div hidden=until-found>Yes.</div><details><summary><button>Who?</button></summary>All.</details>"
        "<dl><dt><button>Why?</button><dd>Hunger.</dl><h2>Menu <button>Copy link</button></h2><button>Order</button>"
        "<p style='color:red; Display : none'>Unseen.</p><body style='display:none'><p style='x-display:none'>"
        "<div hidden>Secret.</div><div id=two aria-hidden=true>Ghost.</div>Soup.",
        "a.html",
    )
    assert headings(document) == [(2, "Where is the canteen?"), (2, "When? At noon?"), (2, "Menu")]
    assert document.text == (
        "Where is the canteen?\n\nBuilding 7.\n\nWhen? At noon?\n\nYes.\n\nWho?\n\nAll.\n\nWhy?\nHunger.\n\n"
        "Menu\n\nSoup."
    )


def test_a_cell_that_covers_others_leaves_the_rest_in_their_columns() -> None:
    page = (
        "<table><thead><tr><th rowspan=2>Region<th colspan=2>2024<th>2025<tr><th>Q1<th>Q2<th>Q1</thead>"
        "<tr><td rowspan='2'>North<td>1<td>2<td>3<tr><td>4<td colspan=2>5<tr><td>South<td>6<td>7<td>8"
        "<tbody><tr><td rowspan=0>East<td colspan=none>9<tr><td>West</table>"
    )
    assert read_one(page, "a.html").text.splitlines() == [
        "Region | 2024 | - | 2025",
        "- | Q1 | Q2 | Q1",
        "North | 1 | 2 | 3",
        "- | 4 | 5",
        "South | 6 | 7 | 8",
        "East | 9",
        "West",
    ]


def test_a_page_cannot_claim_more_cells_than_it_pays_for() -> None:
    wide = "<tr>" + "<td colspan=65534 rowspan=65534>x" * 50 + "<tr><td>y" * 2000
    assert read_one(f"<table>{wide}</table>", "a.html").text.endswith("y")


def test_no_cell_reaches_beyond_its_part_of_the_table() -> None:
    page = "<table><thead><tr><th rowspan=9>Region<th>Sales</thead><tbody><tr><td>North<td>1<tr><td>South<td>2</table>"
    assert read_one(page, "a.html").text.splitlines() == ["Region | Sales", "North | 1", "South | 2"]
