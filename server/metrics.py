"""What the service counts and times, for Prometheus: a registry an app, no label that holds a tenant, text or key."""

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.base import Answer, SearchResult
from server.limits import OPEN_PATHS
from server.telemetry import Trace

if TYPE_CHECKING:
    from server.jobs import Jobs
    from server.redis import Redis

log = logging.getLogger("refdesk.requests")

EVENT_STREAM = b"text/event-stream; charset=utf-8"
FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Every metric of one app."""

    def __init__(self, redis: "Redis | None" = None, jobs: "Jobs | None" = None) -> None:
        self.registry = r = CollectorRegistry()
        self.has_l2 = redis is not None
        if redis is not None:
            r.register(RedisCommands(redis))
        if jobs is not None:
            r.register(JobCounts(jobs))
        self.requests = Counter(
            "refdesk_requests_total", "Requests answered.", ["method", "route", "status"], registry=r
        )
        self.latency = Histogram(
            "refdesk_request_seconds", "Wall time of a request.", ["route"], registry=r, buckets=FAST
        )
        self.stages = Histogram(
            "refdesk_stage_seconds", "Time of one stage of a request.", ["stage"], registry=r, buckets=FAST
        )
        self.own = Histogram(
            "refdesk_own_seconds", "A request's time outside engines and models.", ["route"], registry=r, buckets=FAST
        )
        self.inside = Gauge("refdesk_requests_in_flight", "Requests being worked on.", registry=r)
        self.errors = Counter("refdesk_errors_total", "Errors by class.", ["class"], registry=r)
        self.cache = Counter(
            "refdesk_cache_total", "Look-ups by cache level and outcome.", ["level", "outcome"], registry=r
        )
        self.tokens = Counter("refdesk_tokens_total", "Tokens by kind.", ["kind"], registry=r)
        self.answers = Counter("refdesk_answers_total", "Answers by outcome.", ["outcome"], registry=r)
        self.sentences = Counter(
            "refdesk_sentences_total", "Sentences answered, by support.", ["supported"], registry=r
        )
        self.degraded = Counter(
            "refdesk_degraded_total", "Replies that did without a part, by the part.", ["part"], registry=r
        )
        self.documents = Counter("refdesk_documents_total", "Documents ingested, by outcome.", ["outcome"], registry=r)
        self.ingesting = Counter(
            "refdesk_ingestion_seconds_total",
            "Time that ingestions were busy in each stage; stages run side by side.",
            ["stage"],
            registry=r,
        )

    def count_error(self, error: Exception) -> None:
        self.errors.labels(type(error).__name__).inc()

    def count_search(self, result: SearchResult) -> None:
        self._count_search(result)
        self._count_degraded(result.degraded)

    def _count_search(self, result: SearchResult) -> None:
        self.cache.labels("l1", "hit" if result.cached == "l1" else "miss").inc()
        if self.has_l2 and result.cached != "l1":
            self.cache.labels("l2", "hit" if result.cached == "l2" else "miss").inc()
        self.tokens.labels("query").inc(result.query_tokens)

    def _count_degraded(self, lines: Sequence[str]) -> None:
        """Count a reply once for each part that it did without: a leg, `embedding`, `reranker`, `vectors`, `context` or
        `generator`, the word with which the line about it begins."""
        for part in {line.partition(" ")[0].rstrip(":") for line in lines}:
            self.degraded.labels(part).inc()

    def count_answer(self, answer: Answer) -> None:
        self._count_search(answer.search)
        self._count_degraded(answer.degraded)  # the search's parts are among them
        self.answers.labels("refused" if answer.refused else "answered").inc()
        self.tokens.labels("prompt").inc(answer.usage.prompt_tokens)
        self.tokens.labels("completion").inc(answer.usage.completion_tokens)
        for sentence in answer.sentences:
            self.sentences.labels("yes" if sentence.supported else "no").inc()

    def count_documents(self, outcomes: Mapping[str, int], stages_s: Mapping[str, float]) -> None:
        for outcome, count in outcomes.items():
            self.documents.labels(outcome).inc(count)
        for stage, seconds in stages_s.items():
            self.ingesting.labels(stage).inc(seconds)

    def expose(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self.registry)


class RedisCommands(Collector):
    """What became of the commands sent to Redis, or not sent while it is left alone."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis

    def collect(self) -> Iterable[Metric]:
        commands = CounterMetricFamily("refdesk_redis_commands", "Commands to Redis, by outcome.", labels=["outcome"])
        for outcome in ("ok", "error", "skipped"):
            commands.add_metric([outcome], self.redis.counts[outcome])
        yield commands


class JobCounts(Collector):
    """Uploads in the background: those that this process ended, and all that waited and ran when it last looked."""

    def __init__(self, jobs: "Jobs") -> None:
        self.jobs = jobs

    def collect(self) -> Iterable[Metric]:
        ended = CounterMetricFamily("refdesk_jobs", "Jobs that this process ended, by how.", labels=["state"])
        for state in ("succeeded", "failed", "cancelled"):
            ended.add_metric([state], self.jobs.counts[state])
        yield ended
        present = GaugeMetricFamily("refdesk_jobs_present", "Jobs of the catalog now, by state.", labels=["state"])
        present.add_metric(["queued"], self.jobs.waiting)
        present.add_metric(["running"], self.jobs.running)
        yield present


class Observe:
    """ASGI, outermost: gives a request its trace and id, puts `Server-Timing` on the reply, counts and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trace, request_id = Trace(), f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["trace"] = trace
        status = 499  # what a client that leaves before a reply is counted as

        async def timed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, timings = message["status"], trace.timings_ms()
                if (b"content-type", EVENT_STREAM) in message["headers"]:
                    del timings["own"]  # the generator is still at work, and its time not known yet
                message["headers"] = [
                    *message["headers"],
                    (b"server-timing", server_timing(timings)),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        self.metrics.inside.inc()
        try:
            await self.app(scope, receive, timed)
        finally:
            self.metrics.inside.dec()
            route, timings = getattr(scope.get("route"), "path", "other"), trace.timings_ms()
            self._count(scope["method"], route, status, trace, timings)
            if scope["path"] not in OPEN_PATHS and log.isEnabledFor(logging.INFO):
                log.info("request", extra=_logged(scope, route, request_id, status, timings))

    def _count(self, method: str, route: str, status: int, trace: Trace, timings_ms: Mapping[str, float]) -> None:
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.latency.labels(route).observe(timings_ms["total"] / 1e3)
        if trace.spans:
            self.metrics.own.labels(route).observe(timings_ms["own"] / 1e3)
        for stage, start, end, _ in trace.spans:
            self.metrics.stages.labels(stage).observe(end - start)


def _logged(
    scope: Scope, route: str, request_id: str, status: int, timings_ms: Mapping[str, float]
) -> dict[str, object]:
    """What the log says of a request: whose key, which route and how it ended; no path, since it may name documents."""
    principal = scope["state"].get("principal")
    return {
        "request_id": request_id,
        "key_id": principal.key_id if principal is not None else None,
        "method": scope["method"],
        "route": route,
        "status": status,
        "timings_ms": {stage: round(ms, 3) for stage, ms in timings_ms.items()},
    }


def server_timing(timings_ms: Mapping[str, float]) -> bytes:
    """The Server-Timing header: `own` (outside engines and models) and `total` first, then the stages."""
    first = [stage for stage in ("total", "own") if stage in timings_ms]
    ordered = [*((k, timings_ms[k]) for k in first), *((k, v) for k, v in timings_ms.items() if k not in first)]
    return ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in ordered).encode()


def trace_of(scope: Scope) -> Trace:
    """The trace that `Observe` gave this request."""
    return cast(Trace, scope["state"]["trace"])
