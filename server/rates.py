"""How often a key may ask: the generic cell rate algorithm (ITU-T I.371), one number a key.

A key of n requests a minute may send n/6 at once, ten seconds' worth, and one every 60/n seconds after that.
"""

import time
from collections.abc import Callable
from typing import Protocol

BURST_S = 10.0
MAX_KEYS = 10_000  # remembered by one process
ROUNDING_S = 1e-6

# The same in Redis, by its clock: KEYS[1] the key, ARGV the interval and the tolerance in seconds; → seconds to wait
GCRA = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local due = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local wait = due - now - tonumber(ARGV[2])
if wait > 0.000001 then
  return tostring(wait)
end
due = due + tonumber(ARGV[1])
redis.call('SET', KEYS[1], string.format('%.6f', due), 'PX', math.ceil((due - now) * 1000))
return '0'
"""


class Rates(Protocol):
    async def take(self, key_id: str, per_minute: float) -> float:
        """Count a request; 0 if it may go on, else the seconds until it might."""
        ...


def interval_and_tolerance(per_minute: float) -> tuple[float, float]:
    """Seconds from one request to the next in the long run, and how far ahead of that a key may be."""
    interval = 60.0 / per_minute
    return interval, interval * (max(1.0, BURST_S / interval) - 1)


class LocalRates:
    """The rates of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}  # when the key's next request would be due if it sent them evenly

    async def take(self, key_id: str, per_minute: float) -> float:
        interval, tolerance = interval_and_tolerance(per_minute)
        now = self._clock()
        due = max(now, self._due.get(key_id, now))
        if (wait := due - now - tolerance) > ROUNDING_S:
            return wait
        if len(self._due) >= MAX_KEYS:
            self._due = {key: at for key, at in self._due.items() if at > now}
        self._due[key_id] = due + interval
        return 0.0
