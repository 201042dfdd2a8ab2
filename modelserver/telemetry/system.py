"""Metrics of the machine, sampled at an interval: by the server itself, or by a command of the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from modelserver.settings.table import Settings
from modelserver.telemetry.collector import Collector
from modelserver.telemetry.gpus import Gpus, GpusUnreadable, management_library
from modelserver.telemetry.host import Processor, read_host
from modelserver.telemetry.records import Reading

_LOGGER: Final = "metrics.MetricCollector"
_COMPLAINTS: Final = 10  # lines of one run that are shown
_PATIENCE: Final = 60.0  # seconds that a command may take, more where it is not called so often


class Record(Protocol):
    """Who takes in what was sampled; any thread may call."""

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """One server line."""

    def host_metrics(self, readings: Sequence[Reading]) -> None:
        """Readings of this machine."""


class SystemMetrics:
    """Samples from the start on, every `metric_time_interval` seconds; nothing of it runs on the event loop."""

    def __init__(
        self,
        settings: Settings,
        record: Record,
        pids: Callable[[], Sequence[int]],
        *,
        gpus: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`pids` are those of the running workers; `gpus` the names of the devices in use; `environment` is that of
        the command.
        """
        self._interval = settings.metric_time_interval
        self._record = record
        self._pids = pids
        self._gpu_names = gpus
        self._gpus: Gpus | None = None
        self._processor = Processor()
        self._collector: Collector | None = None
        if arguments := settings.system_metrics_cmd.split():
            command = (str(settings.python), *arguments)
            patience = max(_PATIENCE, float(self._interval))
            self._collector = Collector(command, settings.home, dict(environment or {}), patience)
        # Bytes by pid, as the command tells; None where nobody reports it and the kernel may be asked.
        self.memory: dict[int, int] | None = {} if settings.disable_system_metrics or self._collector else None
        self._enabled = not settings.disable_system_metrics

    async def run(self) -> None:
        """Sample until cancelled."""
        if not self._enabled:
            return
        try:
            await asyncio.to_thread(self._open_gpus)
            await self._sample_for_ever()
        finally:
            if self._collector is not None:
                self._collector.close()

    async def _sample_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                await self._sample()
            except Exception as error:  # the next one may go well
                self._record.log("ERROR", _LOGGER, f"System metrics cannot be sampled: {error!r}")
            due = max(due + self._interval, loop.time())  # one that takes too long is not made up for
            await asyncio.sleep(due - loop.time())

    async def _sample(self) -> None:
        if self._collector is None:
            await asyncio.to_thread(self._read)
        else:
            await self._run_command(self._collector)

    def _open_gpus(self) -> None:
        if not self._gpu_names or self._collector is not None:
            return
        try:
            self._gpus = Gpus(self._gpu_names, management_library())
        except GpusUnreadable as error:
            self._record.log("WARN", _LOGGER, str(error))

    def _read(self) -> None:
        self._record.host_metrics([*read_host(self._processor), *(self._gpus.read() if self._gpus else ())])

    async def _run_command(self, collector: Collector) -> None:
        report = await asyncio.to_thread(collector.run, self._known_pids())
        for line in report.unreadable[:_COMPLAINTS]:
            self._record.log("WARN", _LOGGER, f"Parse metrics failed: {line}")
        if (more := len(report.unreadable) - _COMPLAINTS) > 0:
            self._record.log("WARN", _LOGGER, f"Parse metrics failed: {more} more lines")
        if report.complaint:
            self._record.log("ERROR", _LOGGER, report.complaint)
        self._record.host_metrics(report.readings)
        assert self.memory is not None
        self.memory.clear()
        self.memory.update(report.memory)

    def _known_pids(self) -> list[int]:
        pids = self._pids()
        if -1 in pids:
            self._record.log("WARN", _LOGGER, "worker pid is not available yet.")
        return [pid for pid in pids if pid > 0]
