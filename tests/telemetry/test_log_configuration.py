"""log4j2's files: what is understood, what costs a complaint, and what is no configuration at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.logconfig.elements import Malformed
from modelserver.logconfig.log4j import read_configuration
from modelserver.logconfig.lookups import Lookups
from modelserver.logconfig.plan import (
    ROOT,
    Appender,
    FileTarget,
    JsonLayout,
    LoggerRule,
    MetricJsonLayout,
    NoTarget,
    PatternLayout,
    Plan,
    QueryLogLayout,
    Reference,
    Rolling,
    StreamTarget,
)
from modelserver.logconfig.properties_document import read_properties
from modelserver.logconfig.reading import read_plan
from modelserver.logconfig.xml_document import read_xml

ENVIRON = {"PLACE": "/var/log", "EMPTY": "", "DEEP": "${env:PLACE}/deep", "LOOP": "${env:LOOP}"}


def lookups() -> Lookups:
    return Lookups(ENVIRON, {"name": "value"}, lambda pattern: f"<{pattern}>", {"hostName": "node1"})


def read(appenders: str = "", loggers: str = '<Root level="info"/>', more: str = "") -> Plan:
    text = f"<Configuration>{more}<Appenders>{appenders}</Appenders><Loggers>{loggers}</Loggers></Configuration>"
    return read_configuration(read_xml(text.encode()), lookups())


def appender(text: str) -> Appender:
    plan = read(text)
    assert plan.complaints == ()
    return plan.appenders[-1]


def rolling(attributes: str = "", inside: str = "", pattern: str = "/x-%d{yyyy}.gz") -> Rolling:
    plan = read(f'<RollingFile name="x" fileName="/x.log" filePattern="{pattern}" {attributes}>{inside}</RollingFile>')
    target = plan.appenders[0].target
    assert isinstance(target, FileTarget) and target.rolling is not None
    return target.rolling


def complaints(plan: Plan) -> list[str]:
    return [complaint.text for complaint in plan.complaints]


# Appenders and layouts.


@pytest.mark.parametrize(
    "text",
    [
        '<Console name="out"><PatternLayout pattern="%m%n"/></Console>',
        '<console NAME="out" target="system_out"><patternlayout><Pattern>%m%n</Pattern></patternlayout></console>',
        '<Appender type="Console" name="out"><Layout type="PatternLayout" pattern="%m%n" charset="UTF-8"/></Appender>',
        '<Console name="out"/>',
    ],
)
def test_console(text: str) -> None:
    assert appender(text) == Appender("out", StreamTarget(1), PatternLayout("%m%n"))


def test_standard_error() -> None:
    assert appender('<Console name="err" target="SYSTEM_ERR"/>').target == StreamTarget(2)


@pytest.mark.parametrize("kind", ["File", "RandomAccessFile", "MemoryMappedFile"])
def test_file(kind: str) -> None:
    assert appender(f'<{kind} name="x" fileName="/x.log"/>').target == FileTarget(Path("/x.log"))
    assert appender(f'<{kind} name="x" fileName="/x.log" append="false"/>').target == FileTarget(Path("/x.log"), False)


def test_relative_file_lies_in_the_current_directory() -> None:
    assert appender('<File name="x" fileName="a/x.log"/>').target == FileTarget(Path.cwd() / "a" / "x.log")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("JsonLayout", JsonLayout()),
        ("JSONPatternLayout", MetricJsonLayout()),
        ("QLogLayout", QueryLogLayout()),
    ],
)
def test_layouts(name: str, layout: object) -> None:
    assert appender(f'<Console name="x"><{name} compact="true"/></Console>').layout == layout


@pytest.mark.parametrize(
    "inside",
    ['<ThresholdFilter level="warn"/>', '<Filters><ThresholdFilter level="WARN" onMatch="ACCEPT"/></Filters>'],
)
def test_threshold(inside: str) -> None:
    assert appender(f'<Console name="x">{inside}</Console>').threshold == "WARN"


def test_rolling_file() -> None:
    policies = """
        <Policies>
            <SizeBasedTriggeringPolicy size="10 MB"/>
            <TimeBasedTriggeringPolicy interval="6" modulate="true"/>
            <OnStartupTriggeringPolicy/>
        </Policies>
        <DefaultRolloverStrategy max="3"/>
    """
    assert rolling(inside=policies) == Rolling("/x-%d{yyyy}.gz", 10 << 20, 6, True, True, 3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [("512", 512), ("1KB", 1024), ("1 kb", 1024), ("2,5 MB", 5 << 19), ("1.5GB", 3 << 29), ("", 10 << 20)],
)
def test_sizes(size: str, expected: int) -> None:
    attribute = f'size="{size}"' if size else ""
    assert rolling(inside=f"<SizeBasedTriggeringPolicy {attribute}/>").size == expected


@pytest.mark.parametrize(
    ("pattern", "strategy", "kept"),
    [
        ("/x-%d{dd}.gz", "", 0),
        ("/x-%i.gz", "", 7),
        ("/x-%d{dd}-%i.gz", "", 0),
        ("/x-%d{dd}.gz", '<DefaultRolloverStrategy max="5"/>', 5),
        ("/x-%d{dd}.gz", "<DefaultRolloverStrategy/>", 0),
    ],
)
def test_archives_that_stay(pattern: str, strategy: str, kept: int) -> None:
    assert rolling(inside=strategy, pattern=pattern).keep == kept


def test_month_in_the_folder_of_archives() -> None:
    assert rolling(pattern="/logs/$${date:yyyy-MM}/x-%d{dd}.gz").pattern == "/logs/%d{yyyy-MM}/x-%d{dd}.gz"


# Loggers.


def test_loggers() -> None:
    plan = read(
        '<Console name="a"/><Console name="b"/>',
        """
        <Logger name="org.pytorch.serve" level="debug" additivity="false">
            <AppenderRef ref="a"/><AppenderRef ref="b" level="WARN"/>
        </Logger>
        <AsyncLogger name="ACCESS_LOG"><AppenderRef ref="b"><ThresholdFilter level="error"/></AppenderRef></AsyncLogger>
        <Logger name="filtered" level="debug"><ThresholdFilter level="error"/></Logger>
        <AsyncRoot level="${env:NONE:-info}"><AppenderRef ref="a"/></AsyncRoot>
        """,
    )
    assert plan.complaints == ()
    assert plan.loggers == {
        "org.pytorch.serve": LoggerRule("DEBUG", (Reference("a"), Reference("b", "WARN")), additive=False),
        "ACCESS_LOG": LoggerRule(None, (Reference("b", "ERROR"),)),
        "filtered": LoggerRule("ERROR"),
        ROOT: LoggerRule("INFO", (Reference("a"),)),
    }
    assert plan.request_debug


def test_asynchronous_appender_is_the_one_behind_it() -> None:
    plan = read(
        '<Async name="a"><AppenderRef ref="b" level="warn"/></Async><Async name="b"><AppenderRef ref="c"/></Async>'
        '<Console name="c"/>',
        '<Root><AppenderRef ref="a" level="info"/></Root>',
    )
    assert plan.loggers[ROOT].references == (Reference("c", "WARN"),)


def test_appenders_in_a_circle_lead_nowhere() -> None:
    plan = read('<Async name="a"><AppenderRef ref="a"/></Async>', '<Root><AppenderRef ref="a"/></Root>')
    assert plan.loggers[ROOT].references == ()


ROUTES = """
<Routing name="r"><Routes pattern="{pattern}">
    <Route key="off"><Null name="nothing"/></Route>
    <Route key="ref" ref="c"/>
    <Route><File name="f" fileName="/f.log"/></Route>
</Routes></Routing><Console name="c"/>
"""


@pytest.mark.parametrize(
    ("pattern", "target"),
    [
        ("${env:NONE:-off}", NoTarget()),
        ("$${sys:none:-ref}", StreamTarget(1)),
        ("${env:PLACE}", FileTarget(Path("/f.log"))),
    ],
)
def test_routes(pattern: str, target: object) -> None:
    plan = read(ROUTES.format(pattern=pattern), '<Root><AppenderRef ref="r"/></Root>')
    (reference,) = plan.loggers[ROOT].references
    assert [each.target for each in plan.appenders if each.name == reference.appender] == [target]


def test_without_loggers_errors_go_to_the_console() -> None:
    plan = read_configuration(read_xml(b"<Configuration/>"), lookups())
    assert plan.loggers[ROOT].level == "ERROR"
    assert len(plan.complaints) == 1


# Lookups.


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("${env:PLACE}/x", "/var/log/x"),
        ("$${env:PLACE}", "/var/log"),
        ("${env:NONE:-a}", "a"),
        ("${env:NONE:-a${env:NONE:-b}}c", "abc"),
        ("${env:NONE:-}", ""),
        ("${env:EMPTY:-a}", ""),
        ("${env:DEEP}", "/var/log/deep"),
        ("${env:${sys:none:-PLACE}}", "/var/log"),
        ("${sys:name} ${hostName} ${date:yyyy}", "value node1 <yyyy>"),
        ("${own}", "text of /var/log"),
        ("${none}", "${none}"),
        ("${java:version}", "${java:version}"),
        ("${jndi:ldap://x/y}", "${jndi:ldap://x/y}"),
        ("${jndi:ldap://x/y:-z}", "z"),
        ("${open", "${open"),
        ("$x $ ${", "$x $ ${"),
    ],
)
def test_lookups(text: str, resolved: str) -> None:
    own = lookups()
    own.properties["own"] = "text of ${env:PLACE}"
    assert own.resolve(text) == resolved


def test_lookup_of_itself_ends() -> None:
    assert "${env:LOOP}" in lookups().resolve("${env:LOOP}")


@given(st.text(alphabet="${}:-ab"))
def test_no_text_breaks_lookups(text: str) -> None:
    lookups().resolve(text)


def test_properties_name_texts() -> None:
    more = '<Properties><Property name="dir">${env:PLACE}</Property><Property name="f" value="${dir}/x"/></Properties>'
    assert read('<File name="x" fileName="${f}.log"/>', more=more).appenders[0].target == FileTarget(
        Path("/var/log/x.log")
    )


# Complaints.


@pytest.mark.parametrize(
    ("appenders", "loggers", "complaint"),
    [
        ('<Kafka name="k" topic="t"/>', "", "<kafka> is no appender of this server: what goes there is lost"),
        ('<Failover name="f" primary="c"/>', "", "<failover> only passes events on"),
        ('<File name="f"/>', "", "without fileName: what goes there is lost"),
        ('<Routing name="r"/>', "", "without routes: what goes there is lost"),
        ('<Console name="c"><HtmlLayout/></Console>', "", "<htmllayout> is not known: lines have the bare message"),
        ('<Console name="c"><MarkerFilter marker="m"/></Console>', "", "<markerfilter> has no effect"),
        (
            '<Console name="c"><ThresholdFilter level="info" onMatch="DENY"/></Console>',
            "",
            "<thresholdfilter> has no effect",
        ),
        (
            '<Console name="c"><PatternLayout charset="UTF-16"/></Console>',
            "",
            "charset UTF-16 has no effect: lines are UTF-8",
        ),
        ('<File name="f" fileName="${ctx:a}"/>', "", "${ctx:a} is not replaced: lookups are env, sys, date and"),
        ('<RollingFile name="f" fileName="/f"/>', "", "without filePattern: the file does not roll"),
        (
            '<RollingFile name="f" fileName="/f" filePattern="/f.%i.zip"/>',
            "",
            "archives are packed as .gz, not as .zip",
        ),
        (
            '<RollingFile name="f" fileName="/f" filePattern="/f"><CronTriggeringPolicy schedule="0"/></RollingFile>',
            "",
            "<crontriggeringpolicy> has no effect",
        ),
        (
            '<RollingFile name="f" fileName="/f" filePattern="/f"><SizeBasedTriggeringPolicy size="a"/></RollingFile>',
            "",
            "size a is no size such as 10 MB, which is used instead",
        ),
        (
            '<RollingFile name="f" fileName="/f" filePattern="/f"><DefaultRolloverStrategy max="x"><Delete/>'
            "</DefaultRolloverStrategy></RollingFile>",
            "",
            "<delete> has no effect: no other files are removed",
        ),
        ("", '<Logger name="l" level="loud"/>', "loud is no level"),
        ("", '<Root><AppenderRef ref="gone"/></Root>', "there is no appender gone"),
        ("", "<Logging/>", "<logging> has no effect"),
    ],
)
def test_what_has_no_meaning_is_told_with_its_line(appenders: str, loggers: str, complaint: str) -> None:
    told = complaints(read(f"\n\n{appenders}", f"{loggers}<Root/>" if "Root" not in loggers else loggers))
    assert any(re.fullmatch(rf"line \d: {re.escape(complaint)}.*", text) for text in told), told


# Documents that are none.

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Configuration name="&b;"/>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><Configuration name="&a;"/>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<Configuration>\n<Appenders>\n</Configuration>", "line 3: mismatched tag"),
        ("", "line 1: no element found"),
        ("no xml", "line 1: syntax error"),
        (BOMB, "line 1: the entity a is declared; entities are not read"),
        (OUTSIDE, "line 1: the entity a is declared; entities are not read"),
        ('<?xml version="1.0" encoding="made-up"?><Configuration/>', "unknown encoding: made-up"),
        ("<log4j:configuration/>", "it is written for log4j 1.x, which is not understood: log4j2 has other elements"),
        ("<html/>", "line 1: <html> where <Configuration> is expected"),
    ],
)
def test_malformed_xml(text: str, reason: str) -> None:
    with pytest.raises(Malformed, match=f"^{re.escape(reason)}$"):
        read_configuration(read_xml(text.encode()), lookups())


@given(st.binary())
def test_no_bytes_break_the_reader(text: bytes) -> None:
    try:
        read_configuration(read_xml(text), lookups())
    except Malformed:
        pass


# Properties.

PROPERTIES = """
status = error
name = Example
property.dir = ${env:PLACE}
appenders = console, rolling
appender.console.type = Console
appender.console.name = OUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %m%n
appender.console.filter.threshold.type = ThresholdFilter
appender.console.filter.threshold.level = warn
appender.rolling.type = RollingFile
appender.rolling.name = ROLL
appender.rolling.fileName = ${dir}/all.log
appender.rolling.filePattern = ${dir}/all-%i.log.gz
appender.rolling.policies.type = Policies
appender.rolling.policies.size.type = SizeBasedTriggeringPolicy
appender.rolling.policies.size.size = 1KB
appender.rolling.strategy.type = DefaultRolloverStrategy
appender.rolling.strategy.max = 3
loggers = server
logger.server.name = org.pytorch.serve
logger.server.level = debug
logger.server.additivity = false
logger.server.appenderRef.out.ref = OUT
logger.server.appenderRef.roll.ref = ROLL
logger.server.appenderRef.roll.level = info
logger.ACCESS_LOG = info, ROLL
rootLogger = warn, OUT
"""


def test_properties_file() -> None:
    plan = read_configuration(read_properties(PROPERTIES.encode()), lookups())
    assert plan.complaints == ()
    roll = Rolling("/var/log/all-%i.log.gz", size=1024, keep=3)
    assert plan.appenders == (
        Appender("OUT", StreamTarget(1), PatternLayout("%p %m%n"), "WARN"),
        Appender("ROLL", FileTarget(Path("/var/log/all.log"), rolling=roll), PatternLayout("%m%n")),
    )
    assert plan.loggers == {
        "org.pytorch.serve": LoggerRule("DEBUG", (Reference("OUT"), Reference("ROLL", "INFO")), additive=False),
        "ACCESS_LOG": LoggerRule("INFO", (Reference("ROLL"),)),
        ROOT: LoggerRule("WARN", (Reference("OUT"),)),
    }


def test_root_with_keys_of_its_own() -> None:
    text = "appender.c.type=Console\nappender.c.name=C\nrootLogger.level=info\nrootLogger.appenderRef.x.ref=C\n"
    plan = read_configuration(read_properties(text.encode()), lookups())
    assert plan.loggers == {ROOT: LoggerRule("INFO", (Reference("C"),))}


def test_properties_of_the_first_log4j_are_refused() -> None:
    with pytest.raises(Malformed, match=r"log4j 1\.x"):
        read_properties(b"log4j.rootLogger=INFO, A\n")


@given(st.dictionaries(st.from_regex(r"[a-z.=]{1,20}", fullmatch=True), st.text(alphabet="ab,$ ", max_size=5)))
def test_no_keys_break_the_reader(keys: dict[str, str]) -> None:
    text = "".join(f"{key.replace('=', '')}={value}\n" for key, value in keys.items())
    try:
        read_configuration(read_properties(text.encode()), lookups())
    except Malformed:
        pass


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.xml", '<Configuration><Loggers><Root level="info"/></Loggers></Configuration>'),
        ("x.log4j", '<Configuration><Loggers><Root level="info"/></Loggers></Configuration>'),
        ("x.properties", "rootLogger.level = info\n"),
    ],
)
def test_name_tells_the_syntax(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_plan(tmp_path / name, lookups()).loggers == {ROOT: LoggerRule("INFO")}


# Documents that would never end, or never fit.


@pytest.mark.parametrize(
    ("suffix", "text", "reason"),
    [
        (".xml", "<Configuration>" + "<a>" * 1000 + "</a>" * 1000, "elements are nested more than 50 deep"),
        (".properties", f"appender.{'a.' * 1000}type = x", "has more than 50 parts"),
        (".properties", f"property.{'a.' * 1000}b = x", "has more than 50 parts"),
        (".xml", '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><Configuration>&d;', "the entity b is declared"),
        (
            ".xml",
            '<!DOCTYPE a [<!ENTITY % b SYSTEM "file:///etc/passwd"> %b;]><Configuration/>',
            "the entity b is declared",
        ),
    ],
)
def test_documents_that_are_too_deep_or_grow(tmp_path: Path, suffix: str, text: str, reason: str) -> None:
    path = tmp_path / f"log{suffix}"
    path.write_text(text)
    with pytest.raises(Malformed, match=reason):
        read_plan(path, lookups())


def test_properties_that_name_each_other_end_somewhere() -> None:
    """One that is in its own value, and a few that would be ten to the power of 18 words."""
    own = lookups()
    own.properties.update(a="<${a}${a}${a}>", b="${c}", c="${b:-x}")
    assert own.resolve("${a}") == "<${a}${a}${a}>"
    assert own.resolve("${b}") == "${b:-x}"
    own.properties.update({f"p{number}": f"${{p{number + 1}}}" * 10 for number in range(18)}, p18="word")
    assert len(own.resolve("${p0}")) < 100_000


def test_detours_are_followed_once() -> None:
    """Of many ways to an appender, the one with the lowest level counts."""
    fans = "".join(
        f'<Async name="f{number}">' + f'<AppenderRef ref="f{number + 1}" level="warn"/>' * 5 + "</Async>"
        for number in range(30)
    )
    more = (
        '<Async name="top"><AppenderRef ref="f0"/><AppenderRef ref="top"/><AppenderRef ref="f30" level="info"/></Async>'
    )
    plan = read(f'{fans}{more}<Console name="f30"/>', '<Root><AppenderRef ref="top" level="debug"/></Root>')
    assert plan.loggers[ROOT].references == (Reference("f30", "INFO"),)
    assert complaints(plan) == []


def test_a_circle_of_appenders_is_told_once() -> None:
    there = '<Async name="a"><AppenderRef ref="b"/><AppenderRef ref="b"/></Async>'
    plan = read(f'{there}<Async name="b"><AppenderRef ref="a"/></Async>', '<Root><AppenderRef ref="a"/></Root>')
    assert complaints(plan) == ["line 1: a leads to no appender"]


@pytest.mark.parametrize("number", ["9" * 10, "9" * 5000, "-1", "1.5", "x"])
def test_numbers_that_mean_nothing(number: str) -> None:
    strategy = f'<DefaultRolloverStrategy max="{number}"/>'
    plan = read(f'<RollingFile name="x" fileName="/x.log" filePattern="/x-%i">{strategy}</RollingFile>')
    (complaint,) = complaints(plan)
    assert "is no number of at most 9 digits, 7 is used" in complaint


@pytest.mark.parametrize("size", ["9" * 400, "1e9", "-1", "MB"])
def test_sizes_that_mean_nothing(size: str) -> None:
    policy = f'<SizeBasedTriggeringPolicy size="{size}"/>'
    plan = read(f'<RollingFile name="x" fileName="/x.log" filePattern="/x-%i">{policy}</RollingFile>')
    (complaint,) = complaints(plan)
    assert "is no size such as 10 MB, which is used instead" in complaint
