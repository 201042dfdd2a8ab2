"""When a dead worker is started again, and when it is given up."""

from __future__ import annotations

# Seconds before each further attempt of an episode; the last one repeats.
DELAYS = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)


class Recovery:
    """The recovery clock of one worker slot.

    An episode begins with the first stop and ends with a successful load. Within `window` seconds of its beginning a
    stop leads to another attempt, after that the slot gives up. A worker that had loaded is tried again at once, then
    after `DELAYS`.
    """

    __slots__ = ("_attempts", "gave_up", "since", "window")

    def __init__(self, window: float) -> None:
        self.window = window
        self.since: float | None = None  # beginning of the episode
        self.gave_up = False
        self._attempts = 0

    def stopped(self, now: float, *, had_loaded: bool, permanent: bool) -> float | None:
        """The process is dead: seconds until the next attempt, or None to give up."""
        if self.since is None:
            self.since = now
            self._attempts = -1 if had_loaded else 0
        if permanent or now - self.since >= self.window:
            self.gave_up = True
            return None
        self._attempts += 1
        return float(DELAYS[min(self._attempts, len(DELAYS)) - 1]) if self._attempts else 0.0

    def loaded(self) -> bool:
        """The model is loaded; True if that ended an episode."""
        recovered = self.since is not None
        self.since = None
        self._attempts = 0
        return recovered

    def healthy(self, now: float) -> bool:
        """Running, starting, or in an episode younger than the window."""
        return not self.gave_up and (self.since is None or now - self.since < self.window)
