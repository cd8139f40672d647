"""The questions of a run as parts of its page: the worst ones with what came instead, then all of them in a table."""

from eval.markup import Markup, element, joined
from eval.metrics import JUDGED
from eval.record import Asked, Run

MISSED = 9999  # the place of what was not found: behind every other
_WORST, _OPEN = 20, 2  # shown, and of them unfolded
_LATE = 10  # a place beyond it is marked
_LONGEST = 160  # characters of a question's answers


def first_place(asked: Asked, column: str) -> int:
    """The place of the first answer; MISSED if the column has none."""
    return asked.places[column][0] if asked.places[column] else MISSED


def worst_questions(run: Run) -> Markup:
    """Those that a search answers worst, each to unfold."""
    served = run.served
    shown = sorted((asked for asked in run.asked if asked.found), key=lambda asked: asked.metrics[served][JUDGED])
    shown = [asked for asked in shown[:_WORST] if asked.metrics[served][JUDGED] < 1]
    cards = [_card(run, asked, is_open=place < _OPEN) for place, asked in enumerate(shown)]
    said = "A wrong judgement, a document that is not there and a weak ranking look alike in a mean: read these."
    nothing = element("p", "Every question is answered by its first hit.")
    return joined([element("h2", "The worst questions"), element("p", said), *(cards or [nothing])])


def every_question(run: Run) -> Markup:
    """A table to sort and to search in: where the first answer stands, column by column."""
    heads = [element("th", column, kind="served" if column == run.served else "") for column in run.means]
    head = element("tr", element("th", "question"), element("th", "answered by", kind="text"), *heads)
    said = "The place of the first answer in each column. A click on a head sorts."
    return joined(
        [
            element("h2", "Every question"),
            element("p", said, kind="hint"),
            element("input", id="filter", type="search", placeholder="only those with …", aria_label="filter"),
            element(
                "table", element("thead", head), element("tbody", *(_row(run, a) for a in run.asked)), id="questions"
            ),
        ]
    )


def _row(run: Run, asked: Asked) -> Markup:
    cells = []
    for column in run.means:
        place = first_place(asked, column)
        kind = f"{'served' * (column == run.served)} {'miss' * (place > _LATE)}"
        cells.append(element("td", _place(place), kind=kind, data_value=place))
    answers = "; ".join(asked.answers)
    answers = answers if len(answers) <= _LONGEST else f"{answers[:_LONGEST]}…"
    return element("tr", element("td", asked.text, kind="text"), element("td", answers, kind="text soft"), *cells)


def _card(run: Run, asked: Asked, *, is_open: bool) -> Markup:
    hits = [
        element(
            "li",
            element("b", found.item, kind="good" if found.is_relevant else ""),
            element("span", f" {found.source} {found.words}…", kind="soft"),
        )
        for found in asked.found
    ]
    places = ", ".join(f"{column} {_place(first_place(asked, column))}" for column in run.means)
    score = f"{JUDGED} {asked.metrics[run.served][JUDGED]:.2f}"
    return element(
        "details",
        element("summary", element("span", score, kind="soft"), asked.text),
        element("p", element("b", "Answered by "), "; ".join(asked.answers)),
        element("p", f"first at: {places}", kind="soft"),
        element("b", "What a search returned"),
        element("ol", *hits),
        **({"open": ""} if is_open else {}),
    )


def _place(place: int) -> str:
    return "–" if place == MISSED else str(place)
