"""Signals that ask for an orderly end: the flag they set, read by the loop at the end of each step."""

import logging
import os
import signal
from types import FrameType

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Remembers the first stop signal; the second one ends the process at once."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    @property
    def is_set(self) -> bool:
        """Whether a stop signal came."""
        return self.signal_name is not None

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and SIGUSR1 from now on (main thread only)."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_set:
            os._exit(128 + number)
        self.signal_name = signal.Signals(number).name
        logger.warning("%s: saving after this step, then stopping; a second signal stops at once", self.signal_name)
