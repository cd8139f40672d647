"""Where a request's time goes: named spans, their sum a stage, and what is left to the app itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stages:
    """Seconds that a long piece of work was busy in each stage. Stages run side by side, so the sum may exceed the
    wall clock; a stage near it is the one that the others wait for."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(slots=True)
class Trace:
    """Spans of one request. Spans may overlap (the two legs run at once); `own_ms` counts overlaps once."""

    started: float = field(default_factory=time.perf_counter)
    spans: list[tuple[str, float, float, bool]] = field(default_factory=list)

    @contextmanager
    def span(self, stage: str, *, outside: bool = False) -> Iterator[None]:
        """Time a stage; `outside` marks work of an engine or a model, which the app's own share leaves out."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spans.append((stage, start, time.perf_counter(), outside))

    def timings_ms(self) -> dict[str, float]:
        """Milliseconds a stage, then `own` and `total` so far."""
        stages: dict[str, float] = {}
        for stage, start, end, _ in self.spans:
            stages[stage] = stages.get(stage, 0.0) + (end - start) * 1e3
        total = (time.perf_counter() - self.started) * 1e3
        return {**stages, "own": total - self._outside_ms(), "total": total}

    def _outside_ms(self) -> float:
        """Length of the union of the outside spans."""
        length, until = 0.0, float("-inf")
        for start, end in sorted((s, e) for _, s, e, outside in self.spans if outside):
            length += max(0.0, end - max(start, until))
            until = max(until, end)
        return length * 1e3
