"""The examples of the page about logs are configurations, and say the same in their several ways."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from modelserver.logconfig.log4j import read_configuration
from modelserver.logconfig.lookups import Lookups
from modelserver.logconfig.plan import Plan
from modelserver.logconfig.properties_document import read_properties
from modelserver.logconfig.xml_document import read_xml

PAGE = (Path(__file__).parents[2] / "docs" / "logging.md").read_text()
TRIAL = """
from pathlib import Path
from modelserver.logconfig.python_style import configure

configure(Path("own.yaml"))
"""


def example(language: str) -> bytes:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text).encode()


def lookups() -> Lookups:
    return Lookups({}, {}, str, {})


def test_xml_and_properties_are_the_same_plan() -> None:
    plans: list[Plan] = [
        read_configuration(read_xml(example("xml")), lookups()),
        read_configuration(read_properties(example("properties")), lookups()),
    ]
    assert plans[0].complaints == plans[1].complaints == ()
    assert {each.name: each for each in plans[0].appenders} == {each.name: each for each in plans[1].appenders}
    assert plans[0].loggers == plans[1].loggers


def test_dictionary_for_python_is_one(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes(example("yaml"))
    subprocess.run([sys.executable, "-c", TRIAL], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "access.log").exists()
