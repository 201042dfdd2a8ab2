"""The `torchrun` map of a model's YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelserver.settings.misspelt import nearest
from modelserver.settings.notices import printable
from modelserver.settings.yaml_values import is_integer, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Torchrun:
    """How the ranks of a parallel worker are launched; None leaves a choice to torchrun."""

    nnodes: int = 1
    nproc_per_node: int = 1
    rdzv_backend: str = "c10d"
    rdzv_endpoint: str | None = None
    rdzv_conf: str | None = None
    monitor_interval: int | None = None  # seconds
    node_rank: int | None = None
    omp_number_threads: int = 1


# key -> (field, smallest value, name in the warning, what the warning says it is reset to)
_INTEGERS: Final = {
    "nnodes": ("nnodes", 1, "torchrun.nnodes", 1),
    "nproc-per-node": ("nproc_per_node", 1, "torchrun.nproc-per-node", 1),
    "monitor-interval": ("monitor_interval", 1, "torchrun.monitor-interval", 5),
    "node-rank": ("node_rank", 0, "torchrun.node-rank", 0),
    "OMP_NUMBER_THREADS": ("omp_number_threads", 1, "OMP_NUMBER_THREADS", 1),
}
_STRINGS: Final = {"rdzv-backend": "rdzv_backend", "rdzv-endpoint": "rdzv_endpoint", "rdzv-conf": "rdzv_conf"}
KEYS: Final = (*_INTEGERS, *_STRINGS)


def read_torchrun(given: Mapping[object, object]) -> tuple[Torchrun, list[str]]:
    """The map and the warnings about what was wrong in it; bad values leave the default."""
    values: dict[str, object] = {}
    warnings: list[str] = []
    for key, value in given.items():
        if key in _INTEGERS:
            field, minimum, name, default = _INTEGERS[str(key)]
            if is_integer(value) and value >= minimum:
                values[field] = value
            else:
                warnings.append(f"Invalid {name}:{shown(value)}, reset to {default}")
        elif key in _STRINGS:
            if isinstance(value, str):
                values[_STRINGS[str(key)]] = value
            else:
                warnings.append(f"Invalid torchrun.{key}:{shown(value)}, should be string")
        else:
            near = nearest(shown(key), KEYS)
            warnings.append(
                f"unsupported parameter {printable(shown(key))}" + (f": did you mean {near}?" if near else "")
            )
    return dataclasses.replace(Torchrun(), **values), warnings  # type: ignore[arg-type]
