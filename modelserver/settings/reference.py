"""The reference page of all settings, made from the tables: `python -m modelserver.settings.reference > PAGE`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from modelserver.settings import unserved
from modelserver.settings.command_line import flags
from modelserver.settings.model_yaml import KEYS
from modelserver.settings.models_property import PARAMETERS
from modelserver.settings.report import text_of
from modelserver.settings.rows import Row
from modelserver.settings.table import FIXED_KEYS, Settings, rows
from modelserver.settings.torchrun import KEYS as TORCHRUN
from modelserver.settings.variables import VARIABLES

# First key of a section -> its title; a section ends where the next one begins.
SECTIONS: Final = {
    "inference_address": "Addresses and protocols",
    "keystore": "TLS",
    "model_store": "Models and workers",
    "metrics_mode": "Metrics and logging",
    "disable_token_authorization": "Security, plugins and the rest",
    "vmargs": "Accepted, without effect (there is no JVM)",
}

_HEAD: Final = """# Configuration

Made from the tables of the program by `python -m modelserver.settings.reference > docs/configuration.md`; do not edit.
`modelserver --show-config` (or `--show-config json`) prints every setting in force with its value and its source.
`modelserver --check` (or `--check json`) looks the whole deployment over; see [migration.md](migration.md).

## Which file, and who wins

The configuration file is the first of: the one `TS_CONFIG_FILE` names, the one `--ts-config` names, the newest saved
configuration in `$LOG_LOCATION/config` (unless `--ncs`), `config.properties` in the current directory.

A key takes its value from the first of: its environment variable (only with `enable_envvars_config=true` in the file),
the command line, the file, the default. Exceptions: `TS_OPEN_INFERENCE_PROTOCOL` is always read, and `TS_ALLOWED_URLS`
counts only with `use_env_allowed_urls=true` as well.

The file has the syntax of Java's `.properties`: `key=value`, `key: value` or `key value` per line, `#` or `!` before
comments, `\\` at the end of a line that goes on, `\\uXXXX` for any character; the last of equal keys counts. `$$NAME$$`
in a value stands for an environment variable, which must be set. Relative paths start at the server's directory.

A value that cannot be used stops the start with one line that names value, key, file, line and the form expected. A key
that is not known has no effect; where it looks like a known one, a WARN line in the log says which.
"""
_ENVIRONMENT: Final = """## Environment variables

Beside the variables of the keys above:
"""
_MODELS: Final = """## Options of a model

They come from the YAML that the archive's manifest names as `configFile`, from the parameters of the registration, and
from the key `models`. Who wins, first to last:

| option | order |
| --- | --- |
| batch size, batch delay | registration, YAML, `models`, 1 and 100 ms |
| response, startup timeout | YAML, `models`, registration, `default_response_timeout`, `default_startup_timeout` |
| workers, of a registration | YAML with both numbers, `initial_workers`, `default_workers_per_model` |
| workers, at start-up | YAML with both numbers, `models`, `default_workers_per_model`, GPUs, CPUs |
| runtime | `models` (`runtimeType`), registration (`runtime`), manifest |
| queue length | YAML, `job_queue_size` |
| all others | YAML, default |

A saved configuration that is restored beats all of them for workers, batch size, batch delay, both timeouts, runtime
and parallel level.

Keys of the YAML; all others are the handler's, which gets the whole mapping as `context.model_yaml_config`. A value of
the wrong kind is ignored with a WARN line that names file, key and value.
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [
        _HEAD,
        "## Command line\n",
        "`modelserver` and `torchserve` are the same program.\n",
        _table(("flag", "meaning"), [(_code(flag), help) for flag, help in flags()]),
        "## Keys of the configuration file\n",
        *_key_tables(),
        f"A file may hold {_listed(sorted(FIXED_KEYS))} too, as saved configurations do; the program knows better.\n",
        _ENVIRONMENT,
        _table(("variable", "meaning"), [(_code(name), text) for name, text in VARIABLES.items()]),
        _MODELS,
        _table(("key", "value", "meaning"), [_option_cells(name) for name in KEYS]),
        f"The mapping `torchrun` takes {_listed(TORCHRUN)}, as the command of that name does.\n",
        f'An entry of the key `models`, `{{"<model>": {{"<version>": {{...}}}}}}`, takes {_listed(PARAMETERS)}; '
        "the numbers of workers count at start-up only.\n",
    ]
    return "\n".join(parts)


def _key_tables() -> Iterable[str]:
    found: dict[str, list[Row]] = {}
    title = ""
    for key, row in rows().items():
        title = SECTIONS.get(key, title)
        found.setdefault(title, []).append(row)
    for title, section in found.items():
        yield f"### {title}\n"
        yield _table(("key", "value", "default", "environment", "meaning"), [_key_cells(row) for row in section])


def _key_cells(row: Row) -> tuple[str, ...]:
    form = f"{row.form.words} ({row.unit})" if row.unit else row.form.words
    help = f"{row.help} (no effect in this version)" if row.key in (*unserved.KEYS, *unserved.STATED) else row.help
    variables = ", ".join(map(_code, row.env)) or "-"
    return _code(row.key), _escaped(form), _default(row), variables, _escaped(help)


def _option_cells(name: str) -> tuple[str, ...]:
    key = KEYS[name]
    return _code(name), key.form, key.help


@cache
def _defaults() -> Settings:
    return Settings(home=Path("<home>"), metrics_config=Path("<home>/ts/configs/metrics.yaml"))


def _default(row: Row) -> str:
    text = text_of(getattr(_defaults(), row.key))
    return _code(text) if text else "-"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    every = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in every) + "\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_code, names))


def _escaped(text: str) -> str:
    """Markdown takes `<word>` for HTML."""
    return text.replace("<", "\\<")


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    sys.stdout.write(page())
