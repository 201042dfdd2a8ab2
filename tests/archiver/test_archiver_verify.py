"""`torch-model-archiver verify`: what it finds in archives, and that it finds nothing in good ones."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_archiver import ModelArchiver, ModelArchiverConfig
from model_archiver.commands import run_command
from model_archiver.config_keys import KEYS
from model_archiver.finding import ERROR, WARNING, Finding
from model_archiver.handler_entry import NoEntry, find_entry
from model_archiver.handler_place import SERVER_HANDLERS
from model_archiver.requirements_file import error_in, read_lines
from model_archiver.verification import verify
from modelserver.settings import model_yaml

HANDLER = "def handle(data, context):\n    return data\n"
MANIFEST = "MAR-INF/MANIFEST.json"


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def manifest(handler: str = "h.py", **model: Any) -> str:
    return json.dumps({"runtime": "python", "model": {"modelName": "m", "handler": handler, **model}})


def write_mar(files: Mapping[str, str | bytes], path: str = "m.mar") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return Path(path)


def write_tar(files: Mapping[str, str], path: str = "m.tar.gz") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(text)
            archive.addfile(header, io.BytesIO(text.encode()))
    return Path(path)


def write_folder(files: Mapping[str, str], path: str = "m") -> Path:
    for name, text in files.items():
        Path(path, name).parent.mkdir(parents=True, exist_ok=True)
        Path(path, name).write_text(text)
    return Path(path)


def findings(files: Mapping[str, str | bytes], level: str = ERROR) -> list[str]:
    """Place and problem of each, in an archive with these files."""
    return [f"{one.place}: {one.problem}" for one in verify(write_mar(files)) if one.level == level]


def broken(handler: str = HANDLER, level: str = ERROR, **model: Any) -> list[str]:
    """The findings in an archive with this handler, whose manifest has these members."""
    return findings({"h.py": handler, MANIFEST: manifest(**model)}, level)


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz", "no-archive"])
def test_nothing_is_found_in_what_the_archiver_packs(form: str) -> None:
    Path("h.py").write_text(HANDLER)
    Path("model.py").write_text("import torch\nclass Net(torch.nn.Module): ...\n")
    Path("w.pt").write_bytes(b"weights")
    Path("req.txt").write_text("numpy>=1.2\n")
    Path("cfg.yaml").write_text("batchSize: 4\nhandler: {a: 1}\n")
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(
            "m", "h.py", "1.0", "w.pt", "model.py", None, "python", "out", form, False, "req.txt", "cfg.yaml"
        )
    )
    (archive,) = Path("out").iterdir()
    assert verify(archive) == []


@pytest.mark.parametrize("write", [write_mar, write_tar, write_folder])
def test_files_that_the_manifest_names_must_be_there(write: Any) -> None:
    root = "root/" if write is write_tar else ""
    document = manifest(serializedFile="w.pt", modelFile="net.py", requirementsFile="r.txt", configFile="c.yaml")
    found = verify(write({f"{root}h.py": HANDLER, f"{root}{MANIFEST}": document}))
    assert [(one.level, one.place) for one in found] == [
        (ERROR, name) for name in ("w.pt", "net.py", "r.txt", "c.yaml")
    ]
    problem = "the manifest names it as serializedFile, but it is not in the archive"
    assert found[0] == Finding(ERROR, "w.pt", problem, "Pack the archive again with this file.")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("{no json", "not JSON: "),
        ("", "not JSON: "),
        ("[]", "not a JSON object"),
        ('{"model": null}', "the member model is not an object"),
        ('{"model": []}', "the member model is not an object"),
        ('{"model": {"handler": ["h.py"]}}', "model.handler is not a text"),
        ('{"model": {"modelName": "a/b"}}', "the name 'a/b' has slashes or control characters"),
        ('{"runtime": "ruby"}', "the runtime 'ruby' is none of python, python3, LSP"),
        ('{"runtime": "LSP"}', "the runtime LSP, of handlers in C++, is not served"),
    ],
)
def test_manifests_that_no_server_accepts(document: str, problem: str) -> None:
    (found,) = findings({"h.py": HANDLER, MANIFEST: document})
    assert found.startswith(f"{MANIFEST}: {problem}")


def test_what_a_registration_can_still_say() -> None:
    assert findings({"h.py": HANDLER, MANIFEST: '{"model": {}}'}) == []
    assert findings({"h.py": HANDLER, MANIFEST: '{"model": {}}'}, WARNING) == [
        f"{MANIFEST}: no modelName",
        f"{MANIFEST}: no handler",
    ]
    assert findings({"h.py": HANDLER}, WARNING) == [f": no {MANIFEST}"]


def test_a_manifest_that_is_not_found() -> None:
    inner = {"m/h.py": HANDLER, f"m/{MANIFEST}": manifest()}
    (found,) = findings(inner)
    assert found == f"m/{MANIFEST}: the manifest lies in m/, not at the root, and is not found there"
    assert verify(write_folder({f"inner/{name}": text for name, text in inner.items()}, "outer/x")) != []
    (flat,) = verify(write_tar({"h.py": HANDLER, MANIFEST: manifest()}))
    assert "at the root, where a tar archive has one folder that is left out" in flat.problem
    assert verify(write_tar({f"./{name}": text for name, text in (("h.py", HANDLER), (MANIFEST, manifest()))})) == []


def test_the_only_folder_of_a_directory_is_the_model() -> None:
    assert verify(write_folder({"inner/h.py": HANDLER, f"inner/{MANIFEST}": manifest()})) == []


GOOD_HANDLERS = [
    "def handle(data, context): ...",
    "async def handle(data, context): ...",
    "def handle(*args): ...",
    "def handle(data, context, more=1, *, other=2): ...",
    "from somewhere import handle",
    "from somewhere import *",
    "import somewhere\nhandle = somewhere.make()",
    "try:\n    import x\nexcept ImportError:\n    def handle(d, c): ...",
    "if True:\n    handle = print",
    "class H:\n    def initialize(self, context): ...\n    def handle(self, data, context): ...",
    "class H(Base): ...",
    "class H(metaclass=M): ...",
    "class H:\n    initialize = handle = print",
    "class H:\n    def initialize(self, c):\n        self.handle = print",
    "class H:\n    def __getattr__(self, name): ...",
    "from base import Base\nclass H(Base):\n    @staticmethod\n    def handle(data): ...",
    "with open('x') as handle: ...",
    "x = '\\d' is '\\d'\ndef handle(data, context): ...",
]

BAD_HANDLERS = [
    ("", "there is neither a function handle nor a class"),
    ("def serve(data, context): ...", "there is neither a function handle nor a class"),
    ("class handle: ...", "handle is a class, where a function is called for"),
    ("class A(X): ...\nclass B(X): ...", "no function handle, and of several classes (A, B) none can be chosen"),
    ("class H:\n    def handle(self, data, context): ...", "class H has no method initialize"),
    ("class H(object):\n    def initialize(self, context): ...", "class H has no method handle"),
    ("def handle(data): ...", "handle(data) in line 1 cannot be called with data and context"),
    ("x = 1\ndef handle(data, context, more): ...", "in line 2 cannot be called with data and context"),
    ("def handle(data, context, *, more): ...", "cannot be called with data and context"),
    ("class H(X):\n    def handle(self, data): ...", "handle(self, data) in line 2 cannot be called"),
]


@pytest.mark.parametrize("source", GOOD_HANDLERS)
def test_handlers_that_a_server_can_call(source: str) -> None:
    assert broken(source) == []


@pytest.mark.parametrize(("source", "problem"), BAD_HANDLERS)
def test_handlers_that_no_server_can_call(source: str, problem: str) -> None:
    (found,) = broken(source)
    assert found.startswith("h.py: ") and problem in found


def test_functions_behind_a_colon() -> None:
    source = "def predict(data, context): ...\ndef a(): ...\nclass H(X): ..."
    assert find_entry(source.encode(), "predict") == "function predict"
    assert find_entry(source.encode(), "absent") == "class H"
    assert find_entry(source.encode()) == "class H"
    with pytest.raises(NoEntry, match=r"^a\(\) in line 2 cannot be called"):
        find_entry(source.encode(), "a")


@pytest.mark.parametrize(
    ("source", "where"),
    [
        (b"def handle(:\n", "h.py, line 1: not Python: invalid syntax"),
        (b"x = 1\n  y = 2\n", "h.py, line 2: not Python: unexpected indent"),
        (b"\0", "h.py"),  # how the next line goes on differs from Python to Python
        (b"x = '\xff'\n", "h.py"),
    ],
)
def test_handlers_that_are_no_python(source: bytes, where: str) -> None:
    (found,) = findings({"h.py": source, MANIFEST: manifest()})
    assert found.startswith(where)


@pytest.mark.parametrize("handler", ["h.py", "h", "h:handle", "h.py:handle", "elsewhere/h.py"])
def test_spellings_of_a_handler(handler: str) -> None:
    assert findings({"h.py": HANDLER, MANIFEST: manifest(handler)}) == []


@pytest.mark.parametrize(
    ("handler", "file"),
    [
        ("sub/h.py:handle", "sub/h.py"),
        ("pkg", "pkg/__init__.py"),
        ("pkg.mod", "pkg/mod.py"),
        ("c", "c.cpython-311-x.so"),
    ],
)
def test_handlers_in_folders_and_packages(handler: str, file: str) -> None:
    assert findings({file: HANDLER, MANIFEST: manifest(handler)}) == []


@pytest.mark.parametrize("handler", ["base_handler", "vision_handler", "json"])
def test_handlers_that_are_no_files(handler: str) -> None:
    """Of the server, or of an installed package."""
    assert findings({MANIFEST: manifest(handler)}) == []


def test_handlers_that_are_missing() -> None:
    problem = "the handler is neither in the archive nor a handler of the server nor an installed package"
    assert findings({MANIFEST: manifest("absent_handler.py")}) == [f"absent_handler.py: {problem}"]
    (found,) = findings({"sub/h.py": HANDLER, MANIFEST: manifest("sub/h.py")})
    assert found.startswith("sub/h.py: only the name of a handler's file counts, without its folder")


def test_the_server_s_handlers_are_all_known() -> None:
    folder = Path(model_yaml.__file__).parents[1] / "ts" / "torch_handler"
    there = {path.stem for path in folder.glob("*.py")}
    assert there >= SERVER_HANDLERS
    assert {name for name in there if name.endswith(("_handler", "_classifier"))} <= SERVER_HANDLERS


def test_the_model_file() -> None:
    assert broken(modelFile="h.py") == []
    assert broken(level=WARNING, modelFile="h.py") == [
        "h.py: the built-in handlers want one class in it, there are 0",
    ]
    files = {"h.py": HANDLER, "net.py": "class (", MANIFEST: manifest(modelFile="net.py")}
    assert findings(files) == ["net.py, line 1: not Python: invalid syntax"]


def test_other_sources_only_warn() -> None:
    files = {"h.py": HANDLER, "old.py": "print 'x'", MANIFEST: manifest()}
    assert findings(files) == []
    (found,) = findings(files, WARNING)
    assert found.startswith("old.py, line 1: not Python: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "c.yaml, line 1: not YAML: "),
        ("a: 1\nb: *x\n", "c.yaml, line 2: not YAML: found undefined alias 'x'"),
        ("- 1", "c.yaml: its top level is not a mapping"),
        ("1: 2", "c.yaml: the key 1 is not a text"),
        ('a: !!int ""', "c.yaml: not YAML: "),
    ],
)
def test_configurations_that_cannot_be_read(text: str, problem: str) -> None:
    (found,) = findings({"h.py": HANDLER, "c.yaml": text, MANIFEST: manifest(configFile="c.yaml")})
    assert found.startswith(problem)


def test_values_of_a_configuration() -> None:
    text = "batchSize: '4'\nmaxBatchDelay: true\nresponseTimeout: 0\ndeviceType: tpu\nbatchsize: 3\nminWorkers: 1\n"
    files = {"h.py": HANDLER, "c.yaml": text, MANIFEST: manifest(configFile="c.yaml")}
    assert findings(files) == []
    assert findings(files, WARNING) == [
        "c.yaml: batchSize: '4' is ignored, it should be an integer from 1",
        "c.yaml: maxBatchDelay: True is ignored, it should be an integer from 0",
        "c.yaml: responseTimeout: 0 is ignored, it should be an integer from 1",
        "c.yaml: deviceType: 'tpu' is ignored, it should be one of cpu, gpu",
        "c.yaml: no server reads the key batchsize, but batchSize",
        "c.yaml: minWorkers and maxWorkers count only together",
    ]
    assert findings(files | {"c.yaml": ""}, WARNING) == []


def test_the_keys_of_a_configuration_are_those_of_the_server() -> None:
    assert KEYS.keys() == model_yaml.KEYS.keys()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [1, 0, True, "cpu", "pp", [0], ["a"], {}, None, 1.5])
def test_what_is_accepted_is_what_the_server_takes(key: str, value: object) -> None:
    """A value that the server refuses is complained about."""
    try:
        model_yaml.KEYS[key].read(value)
    except ValueError:
        assert not KEYS[key][1](value)


def test_requirements() -> None:
    text = (
        "# comment\n\nnumpy>=1.2,<3  # why\npillow [x]\n--no-index\n-f wheels\n-r more.txt\n./local.whl\n"
        "torch==2.1 \\\n    --hash=sha256:ab\npkg @ https://example.com/p.whl\ngit+https://example.com/r.git\n"
        "old; python_version < '3'\nfoo bar\n=1\n"
    )
    files = {"h.py": HANDLER, "r.txt": text, "local.whl": "", MANIFEST: manifest(requirementsFile="r.txt")}
    assert [one.split(":")[0] for one in findings(files)] == ["r.txt, line 14", "r.txt, line 15"]
    assert findings(files, WARNING) == ["r.txt, line 7: more.txt is not in the archive"]


def test_lines_of_requirements() -> None:
    text = "\ufeffa==1 \\\n  ; python_version > '3'\n#c \\\nb\n-e ./x\n--requirement=y.txt\nc \\"
    lines = list(read_lines(text))
    assert [(line.number, line.text, line.file) for line in lines] == [
        (1, "a==1   ; python_version > '3'", ""),
        (4, "b", ""),
        (5, "-e ./x", "./x"),
        (6, "--requirement=y.txt", "y.txt"),
        (7, "c", ""),
    ]
    assert [error_in(line) for line in lines] == [""] * 5


def test_requirements_that_are_no_text() -> None:
    files: dict[str, str | bytes] = {"h.py": HANDLER, "r.txt": b"\xff", MANIFEST: manifest(requirementsFile="r.txt")}
    assert findings(files)[0].startswith("r.txt: not text: ")


def test_names_that_are_unsafe_to_unpack() -> None:
    good = {"h.py": HANDLER, MANIFEST: manifest()}
    (found,) = findings({**good, "a/../../x": ""})
    assert found == "a/../../x: its name leads out of the model directory, so the whole archive is refused"
    assert findings({**good, "a/../x": ""}) == []
    assert findings({**good, "/etc/x": ""}, WARNING) == ["/etc/x: an absolute name, unpacked as etc/x"]
    assert findings({**good, "a": "", "a/b": ""}) == ["a: a file and a folder of one name cannot be unpacked"]
    assert findings({**good, "./h.py": HANDLER}, WARNING) == ["h.py: it is there 2 times, the last one counts"]


def test_links() -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write_mar({"h.py": HANDLER, MANIFEST: manifest()})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "h.py")
    assert [one.problem for one in verify(path)] == ["a link: it is unpacked as a file that holds the link's target"]
    path = write_tar({"m/h.py": HANDLER, f"m/{MANIFEST}": manifest()})
    with tarfile.open("linked.tar.gz", "w:gz") as archive, tarfile.open(path) as first:
        for member in first:
            archive.addfile(member, first.extractfile(member))
        for name, kind in (("link", tarfile.SYMTYPE), ("pipe", tarfile.FIFOTYPE)):
            special = tarfile.TarInfo(f"m/{name}")
            special.type = kind
            archive.addfile(special)
    assert [one.problem for one in verify(Path("linked.tar.gz"))] == [
        "a link: it is unpacked as an empty file",
        "a device or pipe, which is left out",
    ]
    folder = write_folder({"h.py": HANDLER, MANIFEST: manifest()})
    (folder / "again").symlink_to(folder.absolute(), target_is_directory=True)
    (folder / "lost").symlink_to("absent")
    assert [(one.place, one.problem) for one in verify(folder)] == [("lost", "a link that leads nowhere")]


@pytest.mark.parametrize("place", ["h.py", "r.txt", "c.yaml", MANIFEST])
def test_files_that_nobody_could_read(place: str) -> None:
    """They are not taken into memory."""
    files: dict[str, str | bytes] = {
        "h.py": HANDLER,
        "r.txt": "",
        "c.yaml": "",
        MANIFEST: manifest(requirementsFile="r.txt", configFile="c.yaml"),
    }
    (found,) = findings(files | {place: b" " * ((1 << 24) + 1)})
    assert found.startswith(f"{place}: ") and found.endswith("larger than 16777216 bytes")


@given(data=st.data(), form=st.sampled_from(["mar", "tar"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_damaged_is_told_and_never_raised(data: st.DataObject, form: str) -> None:
    document = manifest(requirementsFile="r.txt", configFile="c.yaml", modelFile="h.py")
    files = {"h.py": HANDLER, "r.txt": "numpy", "c.yaml": "batchSize: 4", MANIFEST: document}
    path = write_mar(files) if form == "mar" else write_tar({f"m/{name}": text for name, text in files.items()})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert all(finding.problem and finding.remedy for finding in verify(path))


@given(source=st.text(st.characters(codec="utf-8"), max_size=60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_is_judged(source: str) -> None:
    files = {"h.py": source, "r.txt": source, "c.yaml": source, "m.py": source}
    findings({**files, MANIFEST: manifest(requirementsFile="r.txt", configFile="c.yaml", modelFile="m.py")})
    findings({"h.py": HANDLER, MANIFEST: source})


def test_damaged_archives() -> None:
    path = write_mar({"h.py": HANDLER, "w.pt": "weights" * 99, MANIFEST: manifest()})
    data = bytearray(path.read_bytes())
    place = data.index(b"w.pt") + 6
    data[place] ^= 0xFF
    path.write_bytes(data)
    (found,) = verify(path)
    assert (found.level, found.place) == (ERROR, "w.pt")
    assert found.problem.startswith("damaged: ")
    path = write_tar({"m/h.py": HANDLER, f"m/{MANIFEST}": manifest()})
    path.write_bytes(path.read_bytes()[:-20])
    (found,) = verify(path)
    assert "damaged" in found.problem


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.mar", b"text", "not a zip archive, as the suffix .mar promises"),
        ("x.mar", b"", "not a zip archive, as the suffix .mar promises"),
        ("x.zip", b"PK\3\4", "a zip archive that is not named .mar"),
        ("x.tar.gz", b"text", "neither a .mar (zip) nor a gzip-compressed tar archive"),
        ("x.tar.gz", b"\x1f\x8btext", "damaged: "),
        ("x.war", b"PK\3\4", "a workflow archive, not a model archive"),
    ],
)
def test_files_that_are_no_archive(name: str, content: bytes, problem: str) -> None:
    Path(name).write_bytes(content)
    (found,) = verify(Path(name))
    assert found.level == ERROR
    assert found.problem.startswith(problem)


def test_the_first_line_says_what_broke(capsys: pytest.CaptureFixture[str]) -> None:
    write_mar({"h.py": HANDLER, "old.py": "print 'x'", MANIFEST: manifest(configFile="c.yaml")})
    write_mar({"h.py": HANDLER, MANIFEST: manifest()}, "good.mar")
    assert run_command(["verify", "m.mar", "good.mar", "absent"]) == 1
    lines = capsys.readouterr().out.splitlines()
    problem = "the manifest names it as configFile, but it is not in the archive"
    assert lines[0] == f"m.mar: error: c.yaml: {problem}. Pack the archive again with this file."
    assert lines[1].startswith("m.mar: warning: old.py, line 1: not Python: ")
    assert lines[2:] == [
        "good.mar: ok",
        "absent: error: No such file or directory. Check the path and its permissions.",
    ]
    assert run_command(["verify", "good.mar"]) == 0


def test_findings_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    write_mar({"h.py": "", MANIFEST: manifest()})
    assert run_command(["verify", "--json", "m.mar"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {
            "archive": "m.mar",
            "ok": False,
            "findings": [
                {
                    "level": "error",
                    "place": "h.py",
                    "problem": "there is neither a function handle nor a class",
                    "remedy": "Correct it and pack the archive again.",
                }
            ],
        }
    ]


def test_nothing_of_the_archive_runs() -> None:
    write_mar({"h.py": "raise SystemExit('it ran')\n" + HANDLER, MANIFEST: manifest()})
    assert verify(Path("m.mar")) == []


def test_commands_are_words_of_the_same_program() -> None:
    write_mar({"h.py": HANDLER, MANIFEST: manifest()})
    program = [sys.executable, "-m", "model_archiver.model_packaging"]
    done = subprocess.run([*program, "verify", "m.mar"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "m.mar: ok\n", "")
    wrong = subprocess.run([*program, "verify"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "the following arguments are required: ARCHIVE" in wrong.stderr
