"""The README's commands: known, with known flags and files, and those of the section on use run for real."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.server import MODELSERVER, BackgroundServer
from harness.system import needs, outside_make
from modelserver.settings.command_line import parse
from modelserver.tryout.command_line import parse as parse_run_handler

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "docs" / "examples" / "digits"
DOCUMENTS = [ROOT / "README.md", DIGITS / "README.md"]
ARCHIVER = MODELSERVER.with_name("torch-model-archiver")
DEFAULT_PORTS = {8080: "Inference", 8081: "Management", 8082: "Metrics"}


def blocks(document: Path) -> list[str]:
    """The shell blocks of a document, with continued lines joined."""
    found = re.findall(r"^```(?:sh|bash)\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s*\\\n\s*", " ", block).strip() for block in found]


def commands() -> list[str]:
    """Every command line in a shell block, and every make command in the text."""
    lines = [line for document in DOCUMENTS for block in blocks(document) for line in block.splitlines() if line]
    inline = [line for document in DOCUMENTS for line in re.findall(r"`(make [^`]+)`", document.read_text())]
    return list(dict.fromkeys(lines + inline))


def check_make(words: list[str]) -> None:
    subprocess.run(["make", "-n", "-C", ROOT, *words], env=outside_make(), check=True, stdout=subprocess.DEVNULL)


def check_curl(words: list[str]) -> None:
    (url,) = [word for word in words if word.startswith("http://")]
    port = re.match(r"http://127\.0\.0\.1:(\d+)/", url)
    assert port and int(port[1]) in DEFAULT_PORTS


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = re.fullmatch(r"(\.|modelserver)\[([\w,]+)\]", words[1])
    assert wanted and set(wanted[2].split(",")) <= project["optional-dependencies"].keys()


def check_server(words: list[str]) -> None:
    if words[0] == "run-handler":
        parse_run_handler(words[1:])
    else:
        parse(words)


def check_archiver(words: list[str]) -> None:
    subcommand = words[: words[0] in ("inspect", "verify")]
    usage = subprocess.run([ARCHIVER, *subcommand, "--help"], check=True, capture_output=True, text=True).stdout
    known = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", usage))
    assert {word for word in words if word.startswith("-")} <= known


def check_python(words: list[str]) -> None:
    subprocess.run([sys.executable, ROOT / words[0], "--help"], check=True, stdout=subprocess.DEVNULL)


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "make": check_make,
    "curl": check_curl,
    "pip": check_pip,
    "modelserver": check_server,
    "torch-model-archiver": check_archiver,
    "python": check_python,
    "mkdir": lambda words: None,
}


@pytest.mark.parametrize(
    "command", [pytest.param(line, marks=[needs("make")] if line.startswith("make") else []) for line in commands()]
)
def test_a_command_is_known_with_its_flags_and_files(command: str) -> None:
    program, *words = shlex.split(command)
    CHECKS[program](words)
    for word in words:
        assert not word.startswith("docs/") or (ROOT / word).exists(), word


def test_there_is_something_to_check() -> None:
    """A change of the markup must not empty the tests of this file."""
    programs = {shlex.split(command)[0] for command in commands()}
    assert programs == CHECKS.keys()
    assert {"make serve", "make test"} <= set(commands())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        assert "://" in target or (document.parent / target).exists(), target


SAVE_UNTRAINED = "import torch, model; torch.save(model.DigitNet().state_dict(), '.cache/digits/model.pt')"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A directory like the checkout after `make serve`; what starts there does so on ports the kernel chooses."""
    directory = tmp_path_factory.mktemp("readme")
    (directory / "docs").symlink_to(ROOT / "docs")
    (directory / ".cache" / "digits").mkdir(parents=True)
    environment = {
        "PATH": f"{MODELSERVER.parent}{os.pathsep}{os.environ['PATH']}",
        "TS_CONFIG_FILE": "config.properties",
    }
    shell = BackgroundServer(directory, environment=environment)
    python_path = {**os.environ, "PYTHONPATH": str(DIGITS)}
    subprocess.run([sys.executable, "-c", SAVE_UNTRAINED], cwd=directory, env=python_path, check=True)
    yield shell
    if shell.pid_file.exists():
        shell.launch("--stop", "--foreground")


@needs("curl")
def test_the_section_on_use_works_from_top_to_bottom(shell: BackgroundServer) -> None:
    pack, look, begin, talk, end = (block.splitlines() for block in blocks(DOCUMENTS[0])[-5:])
    (command,), (start,), (stop,) = pack, begin, end
    run(shell, command)
    assert [path.name for path in (shell.directory / "model-store").iterdir()] == ["digits.mar"]

    inspected, verified, tried = (run(shell, line) for line in look)
    assert "digits_handler.py" in inspected
    assert verified.strip().endswith("ok")
    assert ": 200" in tried

    shell.command = ["sh", "-c", start]
    shell.start()
    answers = {line: run(shell, on_the_ports_of(shell, line)) for line in talk}
    assert len(answers) == len(talk) >= 7
    assert not [answer for answer in answers.values() if '"code":' in answer]
    assert '"status": "Healthy"' in answers[talk[0]]
    assert '"modelName": "again"' in answers["curl http://127.0.0.1:8081/models/again"]

    assert run(shell, stop) == "TorchServe has stopped.\n"
    assert shell.wait() == 0


def run(shell: BackgroundServer, line: str) -> str:
    """What a command line prints on stdout; it must succeed."""
    finished = subprocess.run(
        ["sh", "-c", line], cwd=shell.directory, env=shell.environment, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, f"{line}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def on_the_ports_of(shell: BackgroundServer, line: str) -> str:
    """The same command for the ports of this server."""
    for port, api in DEFAULT_PORTS.items():
        line = line.replace(f"http://127.0.0.1:{port}", shell.url(api))
    return line


def handlers() -> Iterator[tuple[str, str]]:
    """Document and source of every handler that is shown as a function."""
    for document in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
            if re.search(r"^def handle\(", block, re.MULTILINE):
                yield document.name, block


@pytest.mark.parametrize(("document", "source"), list(handlers()))
def test_a_handler_that_is_shown_can_be_loaded(document: str, source: str) -> None:
    """A function is called once without data."""
    names: dict[str, Callable[[None, None], object]] = {}
    exec(compile(source, document, "exec"), names)
    assert names["handle"](None, None) is None


def test_handlers_are_shown() -> None:
    assert len(list(handlers())) >= 2
