"""Routes: which appenders an event reaches, and which of them share what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.logconfig.builtin import builtin_plan, with_json_console, with_level, without_files
from modelserver.logconfig.plan import (
    ROOT,
    Appender,
    FileTarget,
    LoggerRule,
    NoTarget,
    PatternLayout,
    Plan,
    Reference,
    StreamTarget,
)
from modelserver.telemetry.routes import Routes

SERVER = "org.pytorch.serve"
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def appender(name: str, pattern: str = "%m", threshold: str = "ALL") -> Appender:
    return Appender(name, FileTarget(Path(f"/{name}")), PatternLayout(pattern), threshold)


def plan(appenders: list[Appender], **rules: LoggerRule) -> Plan:
    return Plan(tuple(appenders), {name.replace("root", ROOT).replace("_", "."): rule for name, rule in rules.items()})


def reached(routes: Routes, logger: str, level: str = "INFO") -> list[str]:
    """Names of the appenders that get an event."""
    return sorted(each.name for sink in routes.find(logger, level) for each in routes.sinks[sink].appenders)


def lowest(routes: Routes, logger: str) -> str | None:
    """The lowest level that reaches anything."""
    return next((level for level in LEVELS if routes.find(logger, level)), None)


@pytest.mark.parametrize(
    ("logger", "level", "appenders"),
    [
        (f"{SERVER}.wlm.WorkerThread", "DEBUG", ["console", "ts_log"]),
        (f"{SERVER}.wlm.WorkerThread", "TRACE", []),
        ("ACCESS_LOG", "INFO", ["access_log", "console", "ts_log"]),
        ("MODEL_LOG", "WARN", ["console", "model_log", "ts_log"]),
        ("TS_METRICS", "INFO", ["console", "ts_log", "ts_metrics"]),
        ("MODEL_METRICS", "INFO", ["console", "model_metrics", "ts_log"]),
        ("TELEMETRY_METRICS", "INFO", ["console", "ts_log"]),
        ("io.netty.handler", "WARN", []),
        ("io.netty.handler", "ERROR", ["console", "ts_log"]),
        ("org.apache.x", "FATAL", []),
        ("anything", "DEBUG", []),
        ("anything", "INFO", ["console", "ts_log"]),
        ("org.pytorch.server", "DEBUG", []),
    ],
)
def test_built_in_plan(logger: str, level: str, appenders: list[str]) -> None:
    assert reached(Routes(builtin_plan(Path("/a"), Path("/b"))), logger, level) == appenders


def test_console_and_the_file_of_everything_are_written_as_one() -> None:
    routes = Routes(builtin_plan(Path("/a"), Path("/b")))
    assert len(routes.sinks) == 5
    assert (routes.request_debug, routes.detailed) == (False, False)


def test_a_level_passes_to_the_appenders_above_whatever_their_rule_says() -> None:
    own, root = LoggerRule("DEBUG"), LoggerRule("ERROR", (Reference("a"),))
    routes = Routes(plan([appender("a")], x=own, root=root))
    assert lowest(routes, "x.y") == "DEBUG"
    assert lowest(routes, "y") == "ERROR"


def test_without_a_level_that_of_the_rule_above_holds() -> None:
    rules = {"x_y": LoggerRule(None, (Reference("a"),)), "x": LoggerRule("WARN"), "root": LoggerRule("INFO")}
    routes = Routes(plan([appender("a")], **rules))
    assert lowest(routes, "x.y.z") == "WARN"


def test_without_any_level_it_is_error() -> None:
    assert lowest(Routes(plan([appender("a")], root=LoggerRule(None, (Reference("a"),)))), "x") == "ERROR"


def test_events_stop_where_a_rule_is_not_additive() -> None:
    rules = {
        "x": LoggerRule("INFO", (Reference("a"),), additive=False),
        "root": LoggerRule("INFO", (Reference("b"),)),
    }
    routes = Routes(plan([appender("a"), appender("b")], **rules))
    assert reached(routes, "x") == ["a"]
    assert reached(routes, "y") == ["b"]


def test_appender_named_twice_gets_an_event_once() -> None:
    rules = {"x": LoggerRule("INFO", (Reference("a"), Reference("a"))), "root": LoggerRule("INFO", (Reference("a"),))}
    assert len(Routes(plan([appender("a")], **rules)).find("x", "INFO")) == 1


def test_levels_of_references_and_thresholds_of_appenders() -> None:
    root = LoggerRule("ALL", (Reference("a", "WARN"), Reference("b")))
    routes = Routes(plan([appender("a"), appender("b", threshold="ERROR")], root=root))
    assert [reached(routes, "x", level) for level in ("INFO", "WARN", "ERROR")] == [[], ["a"], ["a", "b"]]


def test_the_lower_one_of_two_references_counts() -> None:
    rules = {"x": LoggerRule("ALL", (Reference("a", "ERROR"),)), "root": LoggerRule("ALL", (Reference("a", "INFO"),))}
    routes = Routes(plan([appender("a")], **rules))
    assert (lowest(routes, "x"), lowest(routes, "y")) == ("INFO", "INFO")


def test_off_is_off() -> None:
    assert lowest(Routes(plan([appender("a")], root=LoggerRule("OFF", (Reference("a"),)))), "x") is None


@pytest.mark.parametrize(
    ("other", "sinks"),
    [
        (appender("b"), 1),
        (appender("b", pattern="%t"), 2),
        (appender("b", threshold="WARN"), 2),
    ],
)
def test_appenders_share_a_sink_if_nothing_tells_them_apart(other: Appender, sinks: int) -> None:
    root = LoggerRule("INFO", (Reference("a"), Reference("b")))
    assert len(Routes(plan([appender("a"), other], root=root)).sinks) == sinks


def test_appender_that_leads_nowhere_costs_nothing() -> None:
    nothing = Appender("a", NoTarget(), PatternLayout("%m"))
    assert Routes(plan([nothing], root=LoggerRule("INFO", (Reference("a"),)))).find("x", "INFO") == ()


@pytest.mark.parametrize(("level", "passes"), [("warn", "WARN"), ("TRACE", "TRACE"), ("off", None)])
def test_level_of_the_server_is_replaced_with_those_below_it(level: str, passes: str | None) -> None:
    rules = {
        "org_pytorch_serve": LoggerRule("INFO", (Reference("a"),)),
        "org_pytorch_serve_wlm": LoggerRule("ERROR"),
        "root": LoggerRule("ERROR"),
    }
    routes = Routes(with_level(plan([appender("a")], **rules), level))
    assert lowest(routes, f"{SERVER}.wlm.X") == passes
    assert lowest(routes, "y") is None
    assert routes.request_debug


def test_level_where_the_plan_has_no_rule_for_the_server() -> None:
    routes = Routes(with_level(plan([appender("a")], root=LoggerRule("ERROR", (Reference("a"),))), "debug"))
    assert lowest(routes, f"{SERVER}.x") == "DEBUG"


def test_only_streams_become_json() -> None:
    changed = with_json_console(builtin_plan(Path("/a"), Path("/b")))
    kinds = {type(each.layout).__name__ for each in changed.appenders if isinstance(each.target, StreamTarget)}
    assert kinds == {"JsonLayout"}
    assert {type(each.layout).__name__ for each in changed.appenders if isinstance(each.target, FileTarget)} == {
        "PatternLayout"
    }
    assert Routes(changed).detailed


def test_without_files_the_console_stays() -> None:
    routes = Routes(without_files(builtin_plan(Path("/a"), Path("/b"))))
    assert reached(routes, "ACCESS_LOG") == ["console"]
