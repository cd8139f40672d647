"""When a remote call is tried again: 5 attempts, exponential backoff with full jitter, within a budget of retries.

Pure arithmetic: chance and the time are handed in. Full jitter and the budget are those of Brooker, "Exponential
Backoff And Jitter" (AWS Architecture Blog, 2015) and of Google's SRE book, ch. 21: a tenth of requests, so that an
outage is not multiplied.
"""

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how late. `attempts` counts the first one."""

    attempts: int = 5
    base_s: float = 0.2
    cap_s: float = 10.0

    def delay_s(self, failures: int, chance: float, retry_after_s: float | None = None) -> float:
        """Seconds before the next attempt: chance × min(cap, base × 2^(failures - 1)), at least `retry_after_s`.

        `failures` from 1; `chance` uniform in [0, 1).
        """
        jittered = chance * min(self.cap_s, self.base_s * 2.0 ** (failures - 1))
        return max(jittered, retry_after_s or 0.0)


class RetryBudget:
    """Retries may be a share of requests: each request adds `share`, each retry takes 1, at most `reserve` are saved.

    It starts full, so that the first failures of a quiet service are retried.
    """

    def __init__(self, share: float = 0.1, reserve: float = 10.0) -> None:
        self._share, self._reserve = share, reserve
        self._saved = reserve

    def request(self) -> None:
        """Count a request (not its retries)."""
        self._saved = min(self._reserve, self._saved + self._share)

    def take(self) -> bool:
        """Whether one more retry is within the budget; it is then spent."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def is_retryable(status: int) -> bool:
    """408, 429 and every 5xx; no other 4xx, which would fail again in the same way."""
    return status in {408, 429} or status >= 500


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3: seconds or a date); None if there is none to understand."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, until - (time.time() if now is None else now))
