"""`--check`: the whole deployment looked over by the real command, and nothing started or left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.archives import NOOP, pack
from harness.server import MODELSERVER, ended, eventually

PORTS = "".join(f"{api}_address=http://127.0.0.1:0\n" for api in ("inference", "management", "metrics"))
PORTS += "grpc_inference_port=0\ngrpc_management_port=0\n"


class Site:
    """A deployment in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.temp = directory / "temp"
        for folder in (self.store, self.temp):
            folder.mkdir()
        self.configure("")

    def configure(self, text: str) -> None:
        (self.directory / "config.properties").write_text(f"model_store=store\n{PORTS}{text}")

    def start(self, *flags: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "TEMP": str(self.temp), "TMPDIR": str(self.temp)}
        return subprocess.Popen(
            [str(MODELSERVER), *flags],
            cwd=self.directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def check(self, *flags: str) -> tuple[int, str]:
        """Exit status and output; nothing may be said elsewhere."""
        with self.start("--check", *flags) as process:
            output, complaints = process.communicate()
        assert complaints == ""
        return process.returncode, output


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    assert not [path for path in site.temp.rglob("*") if path.name != "models"], "what was unpacked is gone"
    assert not list(site.directory.glob("*.json")) and not (site.directory / "logs").exists()


def test_a_deployment_that_is_ready(site: Site) -> None:
    """Warnings do not fail it; the flags are those of a start."""
    pack(site.store, "m", NOOP)
    site.configure("job_queue_sise=3\n")
    status, output = site.check("--start", "--foreground", "--models", "m.mar", "--ncs", "--disable-token-auth")
    lines = output.splitlines()
    assert status == 0, output
    assert "WARN config.properties:7: Unknown key job_queue_sise: did you mean job_queue_size?" in lines
    assert lines[-1].startswith("This deployment is ready: 0 errors, ")
    assert not any(line.startswith("ERROR") for line in lines)


def test_one_that_is_not(site: Site) -> None:
    """Everything that is wrong is told at once, by line."""
    pack(site.store, "m", "import nowhere_to_be_found\n")
    site.configure("load_models=m.mar,gone.mar\njob_queue_size=many\ninference_address=8080\n")
    status, output = site.check("json")
    found = json.loads(output)
    assert (status, found["ready"]) == (1, False)
    errors = {one["where"]: one["what"] for one in found["findings"] if one["severity"] == "ERROR"}
    assert set(errors) == {"m.mar", "gone.mar", "config.properties:8", "config.properties:9"}
    assert errors["m.mar"].startswith("handler cannot be imported: ModuleNotFoundError: ")
    assert all(one["remedy"] for one in found["findings"] if one["severity"] == "ERROR")


def test_a_file_that_cannot_be_read_at_all(site: Site) -> None:
    (site.directory / "config.properties").write_text("a=\\u12\n")
    status, output = site.check()
    assert status == 1
    assert "ERROR configuration: Malformed \\uxxxx encoding. (\\u12, config.properties:1). Correct it.\n" in output
    status, output = site.check("--ts-config", "gone")
    assert status == 1 and "ERROR configuration: --ts-config file not found: gone. Correct it.\n" in output


def test_the_pid_file_of_a_dead_server_is_left_alone(site: Site) -> None:
    """Only a start and a stop have a say in it."""
    pid_file = site.temp / ".model_server.pid"
    pid_file.write_text("nonsense")
    status, output = site.check()
    assert status == 0 and "orphan" not in output
    assert pid_file.read_text() == "nonsense"
    pid_file.unlink()


def test_other_actions_win(site: Site) -> None:
    assert site.check("--version")[1].startswith("TorchServe Version is ")
    assert site.check("--stop") == (0, "TorchServe is not currently running.\n")


def test_a_reader_who_has_seen_enough(site: Site) -> None:
    """The verdict is in the exit status all the same."""
    (site.store / "junk.mar").write_text("junk")
    with site.start("--check", "--models", "junk.mar") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read()
    assert (process.returncode, complaints) == (1, "")


def test_certificates(site: Site) -> None:
    """Looked at as a start would; each trouble is told once."""
    site.configure("management_address=https://127.0.0.1:0\ncertificate_file=gone.pem\nprivate_key_file=key.pem\n")
    (site.directory / "key.pem").write_text("no key")
    status, output = site.check()
    (line,) = [line for line in output.splitlines() if line.startswith("ERROR")]
    assert status == 1 and line.startswith("ERROR config.properties:8: certificate_file: NoSuchFileException: ")
    (site.directory / "gone.pem").write_text("no certificate")
    status, output = site.check()
    (line,) = [line for line in output.splitlines() if line.startswith("ERROR")]
    assert status == 1 and line.startswith("ERROR TLS: ")
    site.configure("management_address=https://127.0.0.1:0\n")
    status, output = site.check()
    assert status == 0 and "WARN TLS: " in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_ended_at_any_time(site: Site, number: signal.Signals) -> None:
    """Handlers that hang are no reason to wait, and what was unpacked goes."""
    pack(site.store, "m", f"open({str(site.directory / 'begun')!r}, 'w').close()\nimport time\ntime.sleep(600)\n")
    with site.start("--check", "--models", "m.mar") as process:
        eventually(lambda: (site.directory / "begun").exists())
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 130
    eventually(lambda: all(map(ended, family)))
