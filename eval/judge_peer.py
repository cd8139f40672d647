"""Runs in the environment of ragas: rows, a judge and an embedder as JSON on stdin, scores as JSON on stdout.

The judge is any server that speaks OpenAI's chat completions with response_format json_schema (vLLM, llama.cpp, TGI,
OpenAI). What it answers badly is reported by metric, never counted as 0.
"""

import asyncio
import json
import math
import os
import sys

os.environ["RAGAS_DO_NOT_TRACK"] = "true"  # before ragas is imported: no telemetry

_COHERENCE = (
    "Is this answer coherent: does each sentence follow from the one before, without contradiction, repetition or "
    "broken grammar? Question: {user_input}\nAnswer: {response}\nReturn 'pass' or 'fail'."
)


async def judge(asked: dict) -> list[dict]:  # type: ignore[type-arg]
    """For each row its faithfulness, relevance and coherence, or what went wrong with each."""
    import instructor  # type: ignore[import-not-found,unused-ignore]
    from openai import AsyncOpenAI
    from ragas.embeddings import OpenAIEmbeddings  # type: ignore[import-not-found,unused-ignore]
    from ragas.llms.base import InstructorLLM  # type: ignore[import-not-found,unused-ignore]
    from ragas.metrics import DiscreteMetric  # type: ignore[import-not-found,unused-ignore]
    from ragas.metrics.collections import AnswerRelevancy, Faithfulness  # type: ignore[import-not-found,unused-ignore]

    def client(end: dict) -> AsyncOpenAI:  # type: ignore[type-arg]
        return AsyncOpenAI(base_url=end["url"], api_key=end["key"], timeout=600, max_retries=0)

    # ragas' own factory asks for JSON without the schema, which small models do not keep to
    patched = instructor.from_openai(client(asked["judge"]), mode=instructor.Mode.JSON_SCHEMA)
    llm = InstructorLLM(client=patched, model=asked["judge"]["model"], provider="openai", max_retries=1)
    embeddings = OpenAIEmbeddings(client=client(asked["embeddings"]), model=asked["embeddings"]["model"])
    faithfulness, relevance = Faithfulness(llm=llm), AnswerRelevancy(llm=llm, embeddings=embeddings)
    coherence = DiscreteMetric(name="coherence", prompt=_COHERENCE, allowed_values=["pass", "fail"])
    scored = []
    for row in asked["rows"]:
        question, answer = row["question"], row["answer"]
        calls = {
            "faithfulness": faithfulness.ascore(
                user_input=question, response=answer, retrieved_contexts=row["contexts"]
            ),
            "relevance": relevance.ascore(user_input=question, response=answer),
            "coherence": coherence.ascore(llm=llm, user_input=question, response=answer),
        }
        scored.append({name: await _value(call) for name, call in calls.items()})
        print(f"{len(scored)} of {len(asked['rows'])} answers judged: {scored[-1]}", file=sys.stderr, flush=True)
    return scored


async def _value(call) -> float | str:  # type: ignore[no-untyped-def]
    """The score; a text says why there is none."""
    try:
        value = (await call).value
    except Exception as exc:  # every client has errors of its own, and one row must not end the rest
        return f"{type(exc).__name__}: {exc}"[:300]
    if isinstance(value, str):
        return 1.0 if value == "pass" else 0.0
    return float(value) if value is not None and math.isfinite(value) else "the judge gave nothing to count"


if __name__ == "__main__":
    json.dump(asyncio.run(judge(json.load(sys.stdin))), sys.stdout)
