"""The open-loop load: when requests are due, and that a server which stalls cannot hide it."""

import asyncio
import os
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.latency import server
from eval.load import Load, Reply, Sample, Way, arrivals, chat, highest_rate, questions, run, said, search, table
from eval.load_page import Line, write_page
from server.lock import holder_of
from tests.desks import GUIDE, QUESTION, open_desk, open_http, running_server, upload


@given(st.floats(0.5, 200), st.floats(0.1, 20), st.integers(0, 5))
def test_as_many_are_due_as_the_rate_says_in_order_and_the_same_for_a_seed(
    rate: float, seconds: float, seed: int
) -> None:
    due = arrivals(rate, seconds, seed)
    assert len(due) == round(rate * seconds)
    assert due == sorted(due) == arrivals(rate, seconds, seed)
    assert all(0 <= at < seconds for at in due)


def test_gaps_between_arrivals_are_a_poisson_processs() -> None:
    gaps = np.diff(arrivals(20, 500))
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.01)
    assert gaps.std() == pytest.approx(1 / 20, rel=0.05)  # of evenly spaced ones it is 0


async def test_latency_counts_from_when_a_request_was_due() -> None:
    """One answer at a time, 20 ms each, asked for at 200 a second: those that wait must show how long."""
    door, sent = asyncio.Lock(), 0

    async def slow(_: str) -> Reply:
        nonlocal sent
        sent += 1
        async with door:
            await asyncio.sleep(0.02)
        return Reply(200 if sent % 10 else 429)

    load = await run("slow", 200, 0.3, [Way("search", slow, repeat("q"))], os.getpid())
    assert len(load.samples) == sent == len(arrivals(200, 0.3))
    last = max(load.samples, key=lambda sample: sample.due_s)
    assert last.latency_ms > 20 * (len(load.samples) - 1) - 1000 * last.due_s
    assert load.seconds * 1000 >= 20 * len(load.samples)
    assert load.memory[0][1] > 1


async def test_a_mix_has_a_row_for_each_of_its_ways() -> None:
    async def fast(_: str) -> Reply:
        return Reply(200)

    async def slow(_: str) -> Reply:
        await asyncio.sleep(0.2)
        return Reply(200, is_refusal=False)

    ways = [*[Way("search", fast, repeat("q"))] * 3, Way("chat", slow, repeat("q"))]
    load = await run("mix", 80, 0.5, ways, os.getpid())
    rows = list(zip(*(column.cells for column in table("", [load]).columns), strict=True))
    assert [row[:2] for row in rows] == [("mix: search", "60"), ("mix: chat", "20")]
    assert float(rows[0][4]) < 200 <= float(rows[1][3])  # the searches' p95, the chats' p50
    assert [row[8] for row in rows] == ["", "0 of 10"]
    assert all(float(row[2]) <= float(row[1]) for row in rows)  # no more is answered than was due


async def test_the_highest_rate_that_holds_is_found_within_a_tenth() -> None:
    async def attempt(rate: float) -> Load:
        return Load("", rate, 1, (Sample(0, 100 if rate <= 23.5 else 1000, 200),), ())

    rate, runs = await highest_rate(attempt)
    assert 23.5 * 0.9 <= rate <= 23.5
    assert len(runs) < 10


def test_a_lost_request_or_one_turned_away_is_no_answer_and_a_refusal_is_one() -> None:
    samples = (Sample(0, 1, 200, True), Sample(0, 2, 200, False), Sample(0, 1, 429), Sample(0, 1, 0))
    load = Load("chat", 1, 1, samples, ())
    assert (load.answered, load.turned_away, load.failed, load.holds) == ([1, 2], 1, 1, False)
    assert said(load) == "2 answered, 1 turned away (HTTP 429), 1 failed. Refused answers: 1 of 2."
    assert said(Load("search", 1, 1, samples[2:], ())) == "0 answered, 1 turned away (HTTP 429), 1 failed."
    cells = {str(column.header): next(column.cells) for column in table("", [load]).columns}
    assert (cells["HTTP 429"], cells["refused answers"]) == ("1", "1 of 2")


async def test_a_chat_says_whether_its_answer_is_a_refusal(tmp_path: Path) -> None:
    async with open_desk(tmp_path / "data") as desk, open_http(desk) as client:
        await upload(client, {"guide.md": GUIDE})
        assert await chat(client)(QUESTION) == Reply(200, is_refusal=False)
        assert await chat(client)("Zymurgy quaffs jovial xylophones.") == Reply(200, is_refusal=True)
        assert await search(client, rerank=False)(QUESTION) == Reply(200)


def test_the_server_measured_is_the_one_that_was_started(tmp_path: Path) -> None:
    folder, log, fake = tmp_path / "data", tmp_path / "logs" / "log", {"REFDESK_EMBEDDER": "fake"}
    with (
        running_server(folder) as url,
        pytest.raises(SystemExit, match=r"(?s)the end of its log: .*held by process"),
        server(folder, log, **fake),
    ):
        raise AssertionError("somebody else's server is measured")
    with server(folder, log, **fake) as running:
        assert running.url != url
        assert (holder := holder_of(folder)) is not None
        assert (holder.pid, holder.url) == (running.pid, running.url)


def test_no_question_is_asked_twice(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"text": "Who?"}\n{"text": "When?"}')
    assert list(islice(questions(file, "text"), 5)) == ["Who?", "When?", "Who? (1)", "When? (1)", "Who? (2)"]


def test_the_page_loads_nothing_and_escapes(tmp_path: Path) -> None:
    line = Line("<b>", ((0.0, 1.0), (2.0, 5000.0)), said="2 answered")
    page = write_page(tmp_path / "load.html", "a & b", [line], [line]).read_text()
    assert "http" not in page
    assert "<b>" not in page
    assert "2 answered" in page
    assert page.count("<circle") == 2
