"""`modelserver run-handler` as a process: what it prints, where a debugger stops, how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import tempfile
import textwrap
from pathlib import Path

import pytest

from harness.archives import pack
from harness.server import MODELSERVER
from harness.wheels import make_wheel
from model_archiver import ModelArchiver, ModelArchiverConfig

TELLER = """
class Teller:
    def initialize(self, context):
        print("loading", context.model_name)
        self.calls = 0

    def handle(self, data, context):
        self.calls += 1
        size = context.system_properties["batch_size"]
        return [{"call": self.calls, "of": len(data), "batch_size": size, "row": str(row)} for row in data]
"""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a temporary directory beside it."""
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "a.json").write_text('{"a": 1}')
    (directory / "b.txt").write_text("text")
    (tmp_path / "temp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(directory)
    return directory


def run(*arguments: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MODELSERVER, "run-handler", *map(str, arguments)], input=typed, capture_output=True, text=True, timeout=60
    )


def model(source: str, name: str = "model") -> Path:
    """A model directory whose handler has this source, without a manifest."""
    directory = Path(name)
    directory.mkdir()
    (directory / "h.py").write_text(textwrap.dedent(source))
    return directory


def test_files_are_answered_as_one_batch(tmp_path: Path) -> None:
    pack(Path.cwd(), "teller", TELLER)
    done = run("teller.mar", "--input", "a.json", "b.txt")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "loading teller\n"
        "--- a.json: 200\n"
        '{\n  "call": 1,\n  "of": 2,\n  "batch_size": 2,\n  "row": "{\'body\': {\'a\': 1}}"\n}\n'
        "--- b.txt: 200\n"
        '{\n  "call": 1,\n  "of": 2,\n  "batch_size": 2,\n  "row": "{\'body\': \'text\'}"\n}\n'
    )
    assert "run 1: a batch of 2 in " in done.stderr
    assert list((tmp_path / "temp").iterdir()) == [], "what was unpacked is gone"


def test_batches_are_repeated_by_the_same_handler() -> None:
    done = run(model(TELLER), "--handler", "h.py", "--input", "a.json", "b.txt", "--batch-size", "1", "--repeat", "2")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if '"call"' in line] == [f'  "call": {n},' for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz", "no-archive"])
def test_every_form_of_an_archive(form: str) -> None:
    model("def handle(data, context): return [open('extra.txt').read() for _ in data or ()]", "source")
    Path("source/extra.txt").write_text("extra")
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(
            "m", "source/h.py", "1.0", extra_files="source/extra.txt", export_path="out", archive_format=form
        )
    )
    (archive,) = Path("out").iterdir()
    done = run(archive, "--input", "b.txt")
    assert (done.returncode, done.stdout) == (0, "--- b.txt: 200\nextra\n"), done.stderr


def test_a_directory_is_used_where_it_is() -> None:
    directory = model("def handle(data, context): return [__file__ for _ in data or ()]")
    assert f"200\n{directory.absolute()}/h.py\n" in run(directory, "--handler", "h.py", "--input", "b.txt").stdout


STOPS = """
def handle(data, context):
    if data is None:
        return None
    answer = len(data)
    breakpoint()
    return [f"answer {answer}"] * len(data)
"""


def test_a_breakpoint_stops_in_the_handler() -> None:
    typed = "p 'found', answer, data\nanswer = 42\ncontinue\n"
    done = run(model(STOPS), "--handler", "h.py", "--input", "b.txt", typed=typed)
    assert "('found', 1, [{'body': 'text'}])" in done.stdout
    assert done.stdout.endswith("--- b.txt: 200\nanswer 42\n")
    assert done.returncode == 0, done.stderr


def test_who_leaves_the_debugger_leaves_the_run() -> None:
    done = run(model(STOPS), "--handler", "h.py", "--input", "b.txt", "--repeat", "3", typed="quit\n")
    assert done.returncode == 1
    assert done.stdout.count("(Pdb)") == 1
    assert "--- b.txt" not in done.stdout


def test_a_debugger_on_a_terminal() -> None:
    leader, terminal = pty.openpty()
    command: list[str | Path] = [MODELSERVER, "run-handler", model(STOPS), "--handler", "h.py", "--input", "b.txt"]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    try:
        shown = read_to(leader, b"(Pdb) ")
        assert b"-> " in shown and b"h.py(" in shown
        os.write(leader, b"p answer + 1\n")
        assert b"\r\n2\r\n" in read_to(leader, b"(Pdb) ")
        os.write(leader, b"c\n")
        assert b"answer 1" in read_to(leader, b"answer 1")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def read_to(descriptor: int, end: bytes) -> bytes:
    """What a terminal shows, up to this text."""
    shown = b""
    while end not in shown:
        shown += os.read(descriptor, 4096)
    return shown


FAILS = """
def handle(data, context):
    if data is None:
        return None
    return check(data)


def check(data):
    raise ValueError("no such thing")
"""


def test_a_handler_that_fails() -> None:
    done = run(model(FAILS), "--handler", "h.py", "--input", "a.json", "b.txt")
    assert done.returncode == 1
    assert done.stdout == "--- a.json: 503 Prediction failed\n--- b.txt: 503 Prediction failed\n"
    assert "The handler failed: ValueError: no such thing (h.py, line 9, in check)\n" in done.stderr
    assert f'File "{Path.cwd()}/model/h.py", line 5, in handle' in done.stderr


def test_the_debugger_where_a_handler_fails() -> None:
    directory = model(FAILS)
    done = run(
        directory, "--handler", "h.py", "--input", "b.txt", "--pdb", typed="p len(data)\nup\np context.model_name\nq\n"
    )
    assert "ValueError: no such thing\n" in done.stdout
    assert "(Pdb) 1\n" in done.stdout and "'model'" in done.stdout
    assert done.stdout.endswith("--- b.txt: 503 Prediction failed\n")
    assert done.returncode == 1
    (directory / "h.py").write_text("weights = 7\nmissing()\n")
    done = run(directory, "--handler", "h.py", "--input", "b.txt", "--pdb", typed="p weights\nq\n")
    assert "NameError: name 'missing' is not defined\n" in done.stdout and "(Pdb) 7\n" in done.stdout
    assert "The model cannot be loaded (500): handler cannot be imported: NameError" in done.stderr


def test_a_handler_that_breaks_the_contract() -> None:
    done = run(
        model("def handle(data, context):\n    return data and 'text'\n"), "--handler", "h.py", "--input", "b.txt"
    )
    assert (done.returncode, done.stdout) == (1, "--- b.txt: 503 Invalid model predict output\n")
    rule = "a handler returns a list with one element for each request of the batch: expected 1, got a str"
    assert f"The handler failed: handler contract broken: {rule}\n" in done.stderr
    assert f'File "{Path.cwd()}/model/h.py", line 1, in handle' in done.stderr


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "class H:\n  def initialize(self, context):\n    raise OSError('no weights')\n  handle = None",
            "(500): exception in initialize: OSError: no weights (h.py, line 3, in initialize)",
        ),
        (
            "import absent_package",
            "(500): handler cannot be imported: ModuleNotFoundError: No module named 'absent_package'",
        ),
        ("x = 1", "(500): handler contract broken: ValueError: Expected only one class"),
    ],
)
def test_a_model_that_cannot_be_loaded(source: str, told: str) -> None:
    done = run(model(source), "--handler", "h.py", "--input", "b.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"The model cannot be loaded {told}" in done.stderr.splitlines()[0] + "\n"


def test_statuses_and_headers_of_a_handler() -> None:
    source = """
    def handle(data, context):
        if data is None:
            return None
        context.set_response_status(418, "teapot", 1)
        context.set_response_header(0, "X-Name", "value")
        context.metrics.add_counter("Seen", len(data), 0)
        return [b"first", b"\\xff\\xfe"]
    """
    done = run(model(source), "--handler", "h.py", "--input", "a.json", "b.txt")
    first, second = done.stdout.split("--- ")[1:]
    assert "a.json: 200\n" in first and "X-Name: value\n" in first and first.endswith("\nfirst\n")
    assert second == "b.txt: 418 teapot\n<2 bytes, no text; --output DIR keeps them>\n"
    assert "metric Seen: 2" in done.stderr
    assert done.returncode == 1, "one request of the two was refused"


def test_bodies_can_be_kept() -> None:
    source = "def handle(data, context): return data and [b'\\xff' + bytes([n]) for n in range(len(data))]"
    done = run(model(source), "--handler", "h.py", "--input", "a.json", "b.txt", "--output", "kept/here")
    assert done.returncode == 0, done.stderr
    assert Path("kept/here/1-1-a.json.body").read_bytes() == b"\xff\x00"
    assert Path("kept/here/1-2-b.txt.body").read_bytes() == b"\xff\x01"
    assert f"2 bytes in {Path.cwd()}/kept/here/1-2-b.txt.body" in done.stdout
    again = run(
        "model", "--handler", "h.py", "--input", "a.json", "a.json", "--batch-size", "1", "--output", "kept/here"
    )
    assert again.returncode == 0, again.stderr
    assert (
        Path("kept/here/1-2-a.json.body").read_bytes() == Path("kept/here/1-1-a.json.body").read_bytes() == b"\xff\x00"
    )


def test_streamed_answers() -> None:
    source = """
    from ts.handler_utils.utils import send_intermediate_predict_response
    def handle(data, context):
        if data is None:
            return None
        send_intermediate_predict_response(["one"], context.request_ids, "ok", 200, context)
        return ["two"]
    """
    done = run(model(source), "--handler", "h.py", "--input", "b.txt")
    assert done.stdout == "--- b.txt: 200 (piece)\nts_stream_next: true\none\n--- b.txt: 200 (last piece)\ntwo\n", (
        done.stderr
    )


def test_explanations_and_descriptions() -> None:
    source = """
    class H:
        def initialize(self, context): ...
        def handle(self, data, context):
            asked = context.get_request_header(0, "explain"), context.get_request_header(0, "describe")
            return [str(asked)] * len(data)
    """
    directory = model(source)
    assert "('True', None)" in run(directory, "--handler", "h.py", "--input", "b.txt", "--explain").stdout
    assert "(None, 'True')" in run(directory, "--handler", "h.py", "--describe").stdout


ROWS = """
minWorkers: 1
batchSize: "4"
openInference:
  mapping: rows
  inputs: [{name: x, datatype: FP32, shape: [-1]}]
"""


def test_tensors_of_open_inference() -> None:
    pack(
        Path.cwd(),
        "tensors",
        "def handle(data, context): return data and [float(row['body']) * 2 for row in data]",
        config=ROWS,
    )
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2]}
    Path("good.json").write_text(json.dumps({"id": "7", "inputs": [tensor]}))
    Path("bad.json").write_text("{}")
    done = run("tensors.mar", "--protocol", "v2", "--input", "good.json", "bad.json")
    good, bad = done.stdout.split("--- ")[1:]
    assert good.startswith("good.json: 200\n"), done.stderr
    answer = json.loads(good[good.index("{") :])
    assert (answer["id"], answer["model_name"], answer["outputs"][0]["data"]) == ("7", "tensors", [3.0, 4.0])
    assert bad.startswith("bad.json: 400\n")
    assert done.returncode == 1
    assert "batchSize: 4, should be integer" in done.stderr, "the configuration is judged as by a server"


def test_the_configuration_of_the_server_counts() -> None:
    Path("config.properties").write_text(
        "default_service_handler=h.py:other\ndecode_input_request=false\nservice_envelope=body\n"
    )
    directory = model("def other(data, context): return data and [str(row) for row in data]")
    done = run(directory, "--input", "a.json")
    assert done.stdout == "--- a.json: 200\nbytearray(b'{\"a\": 1}')\n", done.stderr
    plain = run(directory, "--input", "a.json", "--envelope", "")
    assert plain.stdout == "--- a.json: 200\n{'body': bytearray(b'{\"a\": 1}')}\n", plain.stderr


NEEDS = "import needed\ndef handle(data, context): return data and [needed.VERSION]"


@pytest.mark.parametrize("form", ["default", "no-archive"])
def test_packages_of_the_model_are_installed_where_a_server_would(tmp_path: Path, form: str) -> None:
    wheels = make_wheel(tmp_path / "wheels", "needed", "4.5").parent
    model(NEEDS)
    Path("requirements.txt").write_text(f"--no-index\n-f {wheels}\nneeded\n")
    config = ModelArchiverConfig("m", "model/h.py", "1.0", export_path="out", archive_format=form)
    config.requirements_file = "requirements.txt"
    ModelArchiver.generate_model_archive(config)
    (archive,) = Path("out").iterdir()
    before = sorted(archive.rglob("*"))
    without = run(archive, "--input", "b.txt")
    assert without.returncode == 1
    assert "requirements.txt is not installed: install_py_dep_per_model is off.\n" in without.stderr
    assert "handler cannot be imported: ModuleNotFoundError: No module named 'needed' (h.py, line 1, in <module>)" in (
        without.stderr
    )
    Path("config.properties").write_text("install_py_dep_per_model=true\n")
    done = run(archive, "--input", "b.txt")
    assert (done.returncode, done.stdout) == (0, "--- b.txt: 200\n4.5\n"), done.stderr
    assert [path for path in sorted(archive.rglob("*")) if "__pycache__" not in path.parts] == before


def test_packages_that_cannot_be_installed() -> None:
    directory = model("def handle(data, context): return data")
    (directory / "MAR-INF").mkdir()
    (directory / "MAR-INF" / "MANIFEST.json").write_text(
        '{"model": {"modelName": "m", "handler": "h.py", "requirementsFile": "r.txt"}}'
    )
    (directory / "r.txt").write_text("--no-index\nabsent-package\n")
    Path("config.properties").write_text("install_py_dep_per_model=true\n")
    done = run(directory, "--input", "b.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Custom pip package installation failed for model m" in done.stderr.splitlines()[0]
    assert "No matching distribution found for absent-package" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["absent.mar", "--input", "b.txt"], 1, "absent.mar: Model not found at: absent.mar"),
        (["bad.mar", "--input", "b.txt"], 1, "bad.mar: Failed to save model: bad.mar (it is not a zip archive)"),
        (["model", "--input", "b.txt"], 1, "Give --handler, and --model-name."),
        (["model", "--handler", "h.py", "--input", "absent"], 2, "absent: No such file or directory"),
        (["model", "--input", "b.txt", "--ts-config", "absent"], 2, "--ts-config file not found: absent"),
    ],
)
def test_what_cannot_be_run(arguments: list[str], status: int, told: str) -> None:
    model("def handle(data, context): return data")
    Path("bad.mar").write_text("text")
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


WAITS = """
import threading
threading.Thread(target=threading.Event().wait).start()
def handle(data, context):
    if data is None:
        return None
    print("waiting", flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    pack(Path.cwd(), "waits", WAITS)
    command: list[str | Path] = [MODELSERVER, "run-handler", "waits.mar", "--input", "b.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        assert process.wait(60) == 130
    assert list((tmp_path / "temp").iterdir()) == []


def test_threads_of_the_handler_do_not_hold_up_the_end() -> None:
    source = WAITS.replace("    threading.Event().wait()\n", "    return ['done'] * len(data)\n")
    done = run(model(source), "--handler", "h.py", "--input", "b.txt")
    assert (done.returncode, done.stdout) == (0, "waiting\n--- b.txt: 200\ndone\n")


def test_nothing_is_left_behind() -> None:
    before = sorted(Path(tempfile.gettempdir()).glob("run-handler-*"))
    run(model(FAILS), "--handler", "h.py", "--input", "b.txt")
    assert sorted(Path(tempfile.gettempdir()).glob("run-handler-*")) == before
    assert not [path for path in Path.cwd().rglob("*") if path.name in ("logs", "key_file.json")]


@pytest.mark.parametrize("place", ["initialize", "handle"])
def test_a_handler_that_ends_the_process_is_told(place: str, tmp_path: Path) -> None:
    source = f"""
    class Ending:
        def initialize(self, context):
            self.end("initialize")

        def handle(self, data, context):
            self.end("handle")

        def end(self, place):
            if place == "{place}":
                raise SystemExit(0)
    """
    pack(Path.cwd(), "ending", textwrap.dedent(source))
    done = run("ending.mar", "--input", "a.json")
    assert done.returncode == 1
    assert "the handler has ended the process (SystemExit: 0): in a server" in done.stderr
    assert list((tmp_path / "temp").iterdir()) == [], "what was unpacked is gone"
