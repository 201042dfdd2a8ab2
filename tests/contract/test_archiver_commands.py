"""`torch-model-archiver` as a program: what it writes, what it says, and how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from contract.server import TORCHSERVE
from harness.server import MODELSERVER

check = pytest.mark.check
fixed = pytest.mark.fixed
PROGRAM = Path(TORCHSERVE or MODELSERVER).with_name("torch-model-archiver")
FILES = [
    *("h.py", "lib/h2.py", "w.pt", "model.py", "req.txt", "cfg.yaml", "foo.so", "file", "x.json", "y.json"),
    *("extra/a.txt", "extra/.dot", "extra/sub/b.txt", "extra/__pycache__/x.pyc", "extra/.hid/x", "other/sub/z.txt"),
]
ALL = "--serialized-file w.pt --model-file model.py -r req.txt -c cfg.yaml --extra-files extra"
MEMBER = "MAR-INF/MANIFEST.json"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory with artifacts, and one for archives."""
    directory = tmp_path / "work"
    for name in FILES:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"content of {name}")
    (directory / "out").mkdir()
    (tmp_path / "temp").mkdir()
    return directory


@pytest.fixture
def pack(work: Path) -> Run:
    """Runs the archiver for a model `m` with these flags; `more` are words that may have blanks."""

    def run(
        flags: str, *more: str, name: str = "m", version: str = "1.0", before: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        arguments = ["--model-name", name, "-v", version, "--export-path", "out", *flags.split(), *more]
        # TorchServe's deletes what it finds under the name of the model there.
        environment = {**os.environ, "TMPDIR": str(work.parent / "temp"), "COLUMNS": "200"}
        command = [*before, str(PROGRAM), *arguments]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)

    return run


def members(path: Path) -> dict[str, str]:
    """Name and text of every file of an archive; the date of the manifest is `<date>`."""
    if path.is_dir():
        found = {file.relative_to(path).as_posix(): file.read_text() for file in path.rglob("*") if file.is_file()}
    elif path.suffix == ".mar":
        with zipfile.ZipFile(path) as mar:
            found = {name: mar.read(name).decode() for name in mar.namelist()}
    else:
        with tarfile.open(path) as tar:
            files = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
            found = {name: file.read().decode() for name, file in files if file}
    return {name: re.sub(r'("createdOn": )"[^"]*"', r'\1"<date>"', text) for name, text in found.items()}


def files(*names: str) -> dict[str, str]:
    """What is packed of these artifacts: files by their name, what lies in folders of `extra` with these."""
    return {re.sub(r"^(extra|lib)/", "", name): f"content of {name}" for name in names}


def manifest(handler: str, runtime: str = "python", **model: str) -> str:
    """As the archiver writes it."""
    first = {"modelName": "m", **{name: text for name, text in model.items() if name == "serializedFile"}}
    ordered = {**first, "handler": handler, **model}
    lines = ",\n".join(f'    "{name}": "{text}"' for name, text in ordered.items())
    return (
        f'{{\n  "createdOn": "<date>",\n  "runtime": "{runtime}",\n  "model": {{\n{lines}\n  }},\n'
        '  "archiverVersion": "0.12.0"\n}'
    )


@check("archive", 2)
@check("archive", 6)
@pytest.mark.parametrize(
    ("flags", "packed", "document"),
    [
        ("--handler h.py", files("h.py"), manifest("h.py", modelVersion="1.0")),
        ("--handler lib/h2", files("lib/h2.py"), manifest("h2", modelVersion="1.0")),
        ("--handler lib/h2:fn", files("lib/h2.py"), manifest("h2:fn", modelVersion="1.0")),
        ("--handler base_handler", {}, manifest("base_handler", modelVersion="1.0")),
        ("--handler vllm_handler", {}, manifest("vllm_handler", modelVersion="1.0")),
        ("--handler h.py --runtime python3", files("h.py"), manifest("h.py", "python3", modelVersion="1.0")),
        ("--handler foo:Bar --runtime LSP", files("foo.so"), manifest("foo:Bar", "LSP", modelVersion="1.0")),
        ("--handler BaseHandler --runtime LSP", {}, manifest("BaseHandler", "LSP", modelVersion="1.0")),
        (
            f"--handler lib/h2.py {ALL}",
            files(
                "lib/h2.py", "w.pt", "model.py", "req.txt", "cfg.yaml", "extra/a.txt", "extra/.dot", "extra/sub/b.txt"
            ),
            manifest(
                "h2.py",
                serializedFile="w.pt",
                modelFile="model.py",
                modelVersion="1.0",
                requirementsFile="req.txt",
                configFile="cfg.yaml",
            ),
        ),
        ("--hand h.py --runt python3", files("h.py"), manifest("h.py", "python3", modelVersion="1.0")),
    ],
)
def test_what_is_packed(pack: Run, work: Path, flags: str, packed: dict[str, str], document: str) -> None:
    """Files at the root, and a manifest to the letter; nothing is said."""
    done = pack(flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert members(work / "out" / "m.mar") == {**packed, MEMBER: document}


@check("archive", 3)
def test_a_version_that_is_empty(pack: Run, work: Path) -> None:
    """It is left out."""
    assert pack("--handler h.py", version="").returncode == 0
    assert members(work / "out" / "m.mar")[MEMBER] == manifest("h.py")


@check("archive", 4)
@pytest.mark.parametrize(
    ("form", "output", "root"),
    [("default", "m.mar", ""), ("zip-store", "m.mar", ""), ("tgz", "m.tar.gz", "m/"), ("no-archive", "m", "")],
)
def test_the_forms_of_an_archive(pack: Run, work: Path, form: str, output: str, root: str) -> None:
    """They hold the same."""
    assert pack(f"--handler h.py --extra-files extra --archive-format {form}").returncode == 0
    held = {"h.py", "a.txt", ".dot", "sub/b.txt", MEMBER}
    assert members(work / "out" / output).keys() == {f"{root}{name}" for name in held}
    if output.endswith(".mar"):
        with zipfile.ZipFile(work / "out" / output) as mar:
            stored = zipfile.ZIP_STORED if form == "zip-store" else zipfile.ZIP_DEFLATED
            assert {member.compress_type for member in mar.infolist()} == {stored}


@check("archive", 5)
@pytest.mark.parametrize("form", ["default", "tgz", "no-archive"])
def test_an_archive_that_is_there(pack: Run, work: Path, form: str) -> None:
    """It is replaced by force alone."""
    output = {"default": "out/m.mar", "tgz": "out/m.tar.gz", "no-archive": "out/m"}[form]
    assert pack(f"--handler h.py --archive-format {form}").returncode == 0
    again = pack(f"--handler lib/h2 --archive-format {form}")
    assert again.returncode == 1
    assert again.stderr.startswith(
        f"ERROR - {output} already exists.\n"
        "Please specify --force/-f option to overwrite the model archive output file.\n"
        "See -h/--help for more details.\n"
        "Traceback (most recent call last):\n"
    )
    assert not [name for name in members(work / output) if name.endswith("h2.py")]
    forced = pack(f"--handler lib/h2 --archive-format {form} -f")
    assert (forced.returncode, forced.stderr) == (0, f"WARNING - Overwriting {output} ...\n")
    assert [name for name in members(work / output) if name.endswith("h2.py")]


@check("archive", 7)
@pytest.mark.parametrize(
    ("entries", "packed", "warning"),
    [
        ("w.pt,extra/a.txt,,", files("w.pt", "extra/a.txt"), ""),
        ("*.json,li[ab]", files("x.json", "y.json", "lib/h2.py"), ""),
        ("no*", {}, "WARNING - Given wildcard pattern did not match any file: no*\n"),
        ("extra", files("extra/a.txt", "extra/.dot", "extra/sub/b.txt"), ""),
    ],
)
def test_extra_files(pack: Run, work: Path, entries: str, packed: dict[str, str], warning: str) -> None:
    """Files, the content of folders, matches of wildcards."""
    done = pack(f"--handler base_handler --extra-files {entries}")
    assert (done.returncode, done.stderr) == (0, warning)
    assert members(work / "out" / "m.mar").keys() == {*packed, MEMBER}


@check("archive", 7)
@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ("--handler h.py --extra-files nope", "FileNotFoundError: File does not exist: nope"),
        ("--handler h.py --extra-files extra,other", "FileExistsError: [Errno 17] File exists: "),
        ("--handler nope", "FileNotFoundError: [Errno 2] No such file or directory: 'nope.py'"),
        ("--handler densenet_handler", "FileNotFoundError: [Errno 2] No such file or directory: 'densenet_handler.py'"),
        ("--handler h.py --model-file nope.py", "FileNotFoundError: [Errno 2] No such file or directory: 'nope.py'"),
        ("--handler h.py --serialized-file lib", "IsADirectoryError: [Errno 21] Is a directory: 'lib'"),
    ],
)
def test_files_that_cannot_be_packed(pack: Run, work: Path, flags: str, error: str) -> None:
    """Nothing is written."""
    done = pack(flags)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(error)
    assert list((work / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "name", "message"),
    [
        (
            "--handler h.py",
            "a b",
            "Model name contains special characters.\n"
            r"The allowed regular expression filter for model name is: ^[A-Za-z0-9][A-Za-z0-9_\-.]*$",
        ),
        (
            "--handler h.py --export-path file",
            "m",
            "Given export-path file is not a directory. Point to a valid export-path directory.",
        ),
    ],
)
def test_names_and_places_that_are_refused(pack: Run, flags: str, name: str, message: str) -> None:
    """With the message as a line of the log."""
    done = pack(flags, name=name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"ERROR - {message}\nTraceback (most recent call last):\n")


@check("archive", 1)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --model-name, --handler, -v/--version"),
        (["--runtime", "go"], "argument --runtime: invalid choice: go (choose from python, python3, LSP)"),
        (
            ["--archive-format", "war"],
            "argument --archive-format: invalid choice: war (choose from tgz, no-archive, zip-store, default)",
        ),
    ],
)
def test_arguments_that_are_wrong(arguments: list[str], message: str) -> None:
    """Status 2, with the usage."""
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    # Newer versions of Python write no quotes around choices.
    assert done.stderr.splitlines()[-1].replace("'", "") == f"torch-model-archiver: error: {message}"


@check("archive", 1)
def test_the_usage() -> None:
    """All flags, in their order."""
    environment = {**os.environ, "COLUMNS": "500"}
    done = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == (
        "usage: torch-model-archiver [-h] --model-name MODEL_NAME [--serialized-file SERIALIZED_FILE] "
        "[--model-file MODEL_FILE] --handler HANDLER [--extra-files EXTRA_FILES] [--runtime {python,python3,LSP}] "
        "[--export-path EXPORT_PATH] [--archive-format {tgz,no-archive,zip-store,default}] [-f] -v VERSION "
        "[-r REQUIREMENTS_FILE] [-c CONFIG_FILE]"
    )


@fixed("archiver's temporary files")
def test_temporary_files_are_the_archiver_s_own(pack: Run, work: Path) -> None:
    """Whatever has the name of the model there."""
    temp = work.parent / "temp"
    (temp / "m").mkdir()
    (temp / "m" / "keep").write_text("of somebody else")
    assert pack("--handler h.py").returncode == 0
    assert (temp / "m" / "keep").exists()
    assert pack("--handler nope -f").returncode == 1
    assert [path.name for path in temp.iterdir()] == ["m"]


@fixed("function of a handler file")
def test_a_file_and_its_function(pack: Run, work: Path) -> None:
    """As a server understands it."""
    assert pack("--handler lib/h2.py:fn").returncode == 0
    held = members(work / "out" / "m.mar")
    assert held == {**files("lib/h2.py"), MEMBER: manifest("h2.py:fn", modelVersion="1.0")}


@fixed("blanks between extra files")
def test_blanks_in_the_list_of_extra_files(pack: Run, work: Path) -> None:
    """They separate."""
    assert pack("--handler h.py", "--extra-files", "w.pt, x.json").returncode == 0
    assert members(work / "out" / "m.mar").keys() == {"h.py", "w.pt", "x.json", MEMBER}


@fixed("missing export directory")
def test_a_directory_that_is_missing(pack: Run, work: Path) -> None:
    """It is made."""
    done = pack("--handler h.py --export-path new/er")
    assert (done.returncode, done.stderr) == (0, "WARNING - Export directory (new/er) does not exist. Creating...\n")
    assert (work / "new" / "er" / "m.mar").exists()


@fixed("archive replaced when complete")
def test_an_archive_that_a_failure_would_replace(pack: Run, work: Path) -> None:
    """It stays as it was. (No file can grow beyond 512 bytes, or 1024, as on a full disk.)"""
    assert pack("--handler h.py").returncode == 0
    before = (work / "out" / "m.mar").read_bytes()
    limited = ["sh", "-c", 'ulimit -f 1; exec "$0" "$@"']
    done = pack(f"--handler h.py -f {ALL} --extra-files extra,x.json,y.json,file,foo.so,lib", before=limited)
    assert done.returncode == 1
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert (work / "out" / "m.mar").read_bytes() == before
