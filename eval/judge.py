"""`python -m eval.judge --url URL --model NAME`: served answers judged by a language model, with ragas.

Faithfulness (is each claim in the passages), relevance (is the question what the answer answers) and coherence, by any
server that speaks OpenAI's chat completions; embeddings come from refdesk's own server. ragas runs in an environment of
its own, with its telemetry off.
"""

import argparse
import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import fmean

import uvicorn

from eval import command
from eval.answer_metrics import Table, without_markers
from eval.answers import Answered, answer_all
from eval.peers import peer_python
from eval.squad import FOLDER, Squad, questions_of, serve_squad
from server.app import create_app

METRICS = ("faithfulness", "relevance", "coherence")
Scored = Mapping[str, float | str]  # metric → score, or why there is none


@asynccontextmanager
async def serve(squad: Squad) -> AsyncIterator[Mapping[str, str]]:
    """refdesk's own HTTP server over the desk, for as long as it is needed; its URL, a key, and its embedder."""
    token = secrets.token_urlsafe(16)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(squad.desk, local_token=token), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        yield {"url": url, "key": token, "model": squad.desk.pipeline.models.embedder.info.name}
    finally:
        server.should_exit = True
        await serving


async def judge(answered: Sequence[Answered], judge: Mapping[str, str], embeddings: Mapping[str, str]) -> list[Scored]:
    """The scores of each answer, from ragas in its own process."""
    rows = [
        {
            "question": a.question.text,
            "answer": without_markers(a.answer.text),
            "contexts": [passage.text for passage in a.answer.passages],
        }
        for a in answered
    ]
    asked = json.dumps({"rows": rows, "judge": judge, "embeddings": embeddings})
    python = await asyncio.to_thread(peer_python, "ragas")
    script = str(Path(__file__).with_name("judge_peer.py"))
    pipe = asyncio.subprocess.PIPE
    isolated = "-P"  # eval/ has a datasets.py, which ragas would take for the library
    process = await asyncio.create_subprocess_exec(str(python), isolated, script, stdin=pipe, stdout=pipe)
    output, _ = await process.communicate(asked.encode())
    if process.returncode:
        raise RuntimeError(f"ragas ended with {process.returncode}: its message is above")
    scored: list[Scored] = json.loads(output)
    return scored


def judge_row(name: str, scored: Sequence[Scored]) -> list[str]:
    """A generator's means over the answers that the judge could judge, and how many these were."""
    cells = []
    for metric in METRICS:
        values = [value for one in scored if isinstance(value := one[metric], float)]
        cells.append(f"{fmean(values):.2f} ({len(values)})" if values else "- (0)")
    return [name, str(len(scored)), *cells]


async def _run(given: argparse.Namespace) -> None:
    questions = [("answerable", question) for question in questions_of(given.data, "answerable", given.answers)]
    rows, problems = [], list[str]()
    for generator in given.generators:
        async with serve_squad(given.data, given.folder, generator=generator) as squad:
            answered = [a for a in await answer_all(squad, questions) if not a.answer.refused]
            async with serve(squad) as own:
                given_end = {"url": given.url, "key": given.key, "model": given.model}
                end = given_end if given.url else {**own, "model": squad.state.namespace.collection.name}
                scored = await judge(answered, end, own)
        rows.append(judge_row(generator, scored))
        problems += [f"{name}: {value}" for one in scored for name, value in one.items() if isinstance(value, str)]
    print(Table(["generator", "answers", *(f"{metric} (answers judged)" for metric in METRICS)], rows))
    if problems:
        print(f"\n{len(problems)} judgements failed; the first: {problems[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.judge", description=__doc__)
    parser.add_argument("--url", help="the judge's base URL, …/v1; default: refdesk's own server")
    parser.add_argument("--model", default="judge", help="the judge's model")
    parser.add_argument("--key", default="none", help="its API key")
    parser.add_argument("--generators", nargs="+", default=["extractive"])
    parser.add_argument("--answers", type=int, default=20, help="questions")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds squad/")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the data folder, kept between runs")
    given = parser.parse_args()
    command.needs(given.data / "squad")
    asyncio.run(_run(given))


if __name__ == "__main__":
    command.run(main)
