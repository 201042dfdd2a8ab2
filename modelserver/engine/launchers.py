"""Programs that start a worker's processes: torchrun for the ranks of a parallel worker, and the CPU launcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from modelserver.settings.torchrun import Torchrun

CPU_LAUNCHER: Final = "torch.backends.xeon.run_cpu"

# Seconds between two looks of torchrun at its ranks. It has nothing to find there, because the nursery ends it with the
# first rank that ends; looking more often costs processor time, and now and then a rank's exit status.
_MONITOR_INTERVAL: Final = 1

_FREE_PORT: Final = "localhost:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a worker is started; by default as the nursery likes."""

    arguments: tuple[str, ...] = ()  # for the interpreter, before the worker's own
    ranks: int = 1
    to_all_ranks: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def torchrun(options: Torchrun, parallel_type: str, run: str, log_directory: Path) -> Launch:
    """The ranks of a parallel worker; `run` names it among all that meet at one rendezvous point."""
    endpoint = options.rdzv_endpoint
    if endpoint is None and options.nnodes == 1 and options.rdzv_backend == "c10d":
        endpoint = _FREE_PORT  # torchrun's default is one port for all
    arguments: dict[str, object] = {
        "--nnodes": options.nnodes,
        "--nproc-per-node": options.nproc_per_node,
        "--log-dir": log_directory.absolute() / "torchelastic_ts",
        "--rdzv-backend": options.rdzv_backend,
        "--rdzv-endpoint": endpoint,
        "--rdzv-id": run,
        "--rdzv-conf": options.rdzv_conf,
        "--node-rank": options.node_rank,
        "--monitor-interval": options.monitor_interval or _MONITOR_INTERVAL,
        "--max-restarts": 0,  # ranks that torchrun replaces would miss the model: workers are replaced as a whole
    }
    given = [str(text) for pair in arguments.items() if pair[1] is not None for text in pair]
    return Launch(
        arguments=("-m", "torch.distributed.run", *given),
        ranks=options.nproc_per_node,
        to_all_ranks=parallel_type != "pp",
        environment={"LOGLEVEL": "INFO", "OMP_NUM_THREADS": str(options.omp_number_threads)},
    )


def cpu_launcher(arguments: Sequence[str], workers: int, place: int) -> Launch:
    """A worker on cores of its own: the share number `place` of as many as the model has workers."""
    share = ("--ninstances", str(workers), "--rank", str(place)) if workers > 1 else ()
    return Launch(arguments=("-m", CPU_LAUNCHER, *arguments, *share))
