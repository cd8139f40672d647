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
