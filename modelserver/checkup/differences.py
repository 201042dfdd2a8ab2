"""What a deployment has that modelserver treats otherwise than TorchServe, and that no warning of a start tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from modelserver.checkup.finding import Finding, remark, warning
from modelserver.settings.model_options import ModelOptions
from modelserver.settings.table import Settings, rows
from modelserver.settings.values import flag

_OLD_TIMEOUT: Final = 120  # s, of every archive with a configuration file, whatever that says
_TIMEOUTS: Final = {"responseTimeout": "response_timeout", "startupTimeout": "startup_timeout"}


def of_settings(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Settings that mean something else here."""
    yield from _blanks(settings)
    if settings.vmargs:
        text = f"vmargs: there is no JVM; of these options only -D names are looked at: {settings.vmargs}"
        yield remark(settings.source("vmargs"), text)
    if "version" in settings.properties:
        yield remark("configuration", "version: the version of modelserver is reported, not this one")
    if settings.enable_envvars_config and "TS_TOKEN_EXPIRATION_MIN" in environ:
        yield remark("environment TS_TOKEN_EXPIRATION_MIN", "TorchServe does not read it, modelserver does")


def of_model(name: str, stated: Mapping[str, Any], options: ModelOptions) -> Iterator[Finding]:
    """Options of a model that mean something else here; `stated` is its configuration file, {} without one."""
    if not stated:
        return
    for key, field in _TIMEOUTS.items():
        value = getattr(options, field)
        if key not in stated and value != _OLD_TIMEOUT:
            text = f"{key} is {value} s; TorchServe takes {_OLD_TIMEOUT} s because the archive has a configuration file"
            yield remark(name, text, f"State {key} in that file if you rely on {_OLD_TIMEOUT} s.")
    if stated.get("maxBatchDelay") == 0:
        text = "maxBatchDelay: 0 means that no batch waits; TorchServe takes it for unset"
        yield remark(name, text, "Remove it if you rely on the default, 100 ms.")


def _blanks(settings: Settings) -> Iterator[Finding]:
    """`key=true ` is true here, and false in TorchServe: where it opens a door, somebody should know."""
    for key, row in rows().items():
        text = settings.properties.get(key, "")
        if row.form is flag and text != text.strip() and text.strip().lower() == "true":
            what = f'{key}="{text}": the blank does not count, the value is true; TorchServe takes it for false'
            yield warning(settings.source(key), what, f"Write {key}=true or {key}=false.")
