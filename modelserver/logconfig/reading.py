"""From settings to a plan: the built-in one, or that of the named file, and what other settings change about it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelserver.logconfig.builtin import builtin_plan, with_json_console, with_level, without_files
from modelserver.logconfig.elements import Malformed
from modelserver.logconfig.lookups import Lookups
from modelserver.logconfig.plan import Complaint, Plan

if TYPE_CHECKING:
    from modelserver.settings.table import Settings

PYTHON: Final = (".yaml", ".yml", ".json", ".ini", ".conf")


def plan_for(settings: Settings, environ: Mapping[str, str], date: Callable[[str], str]) -> Plan:
    """The plan that a server with these settings logs by; `date` tells today by a Java pattern.

    A file that cannot be used costs a complaint, not the start.
    """
    plan = builtin_plan(settings.log_location, settings.metrics_location)
    if settings.log_config is not None:
        plan = _read_file(settings.log_config, _lookups(settings, environ, date), plan)
    if settings.log_level is not None:
        plan = with_level(plan, settings.log_level)
    if settings.log_format == "json":
        plan = with_json_console(plan)
    return plan if settings.log_to_files else without_files(plan)


def _lookups(settings: Settings, environ: Mapping[str, str], date: Callable[[str], str]) -> Lookups:
    """With what log4j2 and a JVM know without being told."""
    system = {
        "user.dir": str(Path.cwd()),
        "user.home": str(Path.home()),
        "java.io.tmpdir": str(settings.temp_dir),
        "file.separator": "/",
        **settings.system_properties,
    }
    return Lookups(environ, system, date, {"hostName": socket.gethostname()})


def _read_file(path: Path, lookups: Lookups, builtin: Plan) -> Plan:
    try:
        plan = read_plan(path, lookups)
    except (Malformed, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        text = f"StatusLogger Error parsing {path}: {reason}. The built-in log configuration is used instead."
        return replace(builtin, complaints=(Complaint(text, "ERROR"),))
    complaints = (replace(each, text=f"StatusLogger {path}: {each.text}") for each in plan.complaints)
    return replace(plan, complaints=tuple(complaints))


def read_plan(path: Path, lookups: Lookups) -> Plan:
    """The plan of a file, whose kind its name tells; what has no known ending is taken for XML.

    Raises Malformed and OSError.
    """
    kind = path.suffix.lower()
    if kind in PYTHON:
        from modelserver.logconfig.python_style import configure

        return configure(path)
    from modelserver.logconfig.log4j import read_configuration

    if kind == ".properties":
        from modelserver.logconfig.properties_document import read_properties

        return read_configuration(read_properties(path.read_bytes()), lookups)
    from modelserver.logconfig.xml_document import read_xml

    return read_configuration(read_xml(path.read_bytes()), lookups)
