"""How much memory processes hold."""

from __future__ import annotations

import logging
from typing import IO

import psutil

logger = logging.getLogger(__name__)


def get_cpu_usage(pid: int | str) -> int:
    """Bytes of memory that a process holds, whatever the name says; 0 for one that does not exist."""
    try:
        return int(psutil.Process(int(pid)).memory_info().rss)
    except (psutil.Error, ValueError):
        logger.error("Failed get process for pid: %s", pid, exc_info=True)
        return 0


def check_process_mem_usage(stdin: IO[str]) -> None:
    """Log `<pid>:<bytes>` for each process that the first line of the input names, separated by commas."""
    for pid in stdin.readline().strip().split(","):
        if pid:
            logger.info("%s:%d", pid, get_cpu_usage(pid))
