"""Archives are opened as a start would, and their handlers imported in processes of their own; nothing is served."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.archives import NOOP, pack
from harness.server import eventually
from harness.wheels import make_wheel
from modelserver.archives.store import ArchiveStore
from modelserver.checkup.finding import Finding
from modelserver.checkup.models import Machine, examine_models
from modelserver.checkup.rehearsals import Rehearsals
from modelserver.engine.placement import Placement
from modelserver.scratch import RunDirectory
from modelserver.settings.snapshot import parse_snapshot
from modelserver.settings.table import Settings
from modelserver.settings.values import models, patterns

BOTH = "def handle(data, context):\n    return data\n"


class Bench:
    """A model store, and what a check says about it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.temp = directory / "temp"
        for folder in (self.store, self.temp):
            folder.mkdir()
        self.settings = Settings(model_store=self.store, temp_dir=self.temp)
        self.environ = dict(os.environ)
        self.gpus = 0

    def check(self, *load: str, **settings: object) -> dict[str, list[str]]:
        """The lines about every archive, without the name of it."""
        told: dict[str, list[str]] = {}
        for finding in self.findings(*load, **settings):
            told.setdefault(finding.where, []).append(str(finding).replace(f" {finding.where}:", "", 1))
        return told

    def findings(self, *load: str, **changes: object) -> Iterator[Finding]:
        settings = replace(self.settings, load_models=",".join(load), **changes)  # type: ignore[arg-type]
        with RunDirectory.make(self.temp) as scratch:
            store = ArchiveStore.of(settings, scratch)
            rehearsals = Rehearsals(settings, self.environ, scratch.path)
            machine = Machine(placement=Placement(self.gpus), cpus=2)
            yield from examine_models(settings, store, rehearsals, machine)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    before = sorted(bench.store.iterdir())
    others = psutil.Process().children()  # of earlier tests, whose pools have adopted orphans
    yield bench
    left = [path for path in bench.temp.rglob("*") if path.name not in ("models", "environments")]
    assert not [path for path in left if path.is_dir() and path.name.startswith("ms-")], "nothing stays unpacked"
    assert not list((bench.temp / "models").glob("*")), "nothing stays unpacked"
    assert set(before) <= set(bench.store.iterdir())
    assert set(psutil.Process().children()) <= set(others), "no process is left"


def test_good_archives_need_no_words(bench: Bench) -> None:
    """Whatever form they have."""
    pack(bench.store, "a", NOOP)
    directory = bench.store / "folder"
    directory.mkdir()
    (directory / "service.py").write_text(BOTH)
    (directory / "weights.bin").touch()
    assert bench.check("a.mar", "folder", default_service_handler="service.py:handle") == {}
    assert sorted(path.name for path in directory.iterdir()) == ["service.py", "weights.bin"]


HANDLERS = {
    "missing-module": (
        "import nowhere_to_be_found\n",
        "handler cannot be imported: ModuleNotFoundError: No module named",
    ),
    "wrong-syntax": ("def handle(:\n", "handler cannot be imported: SyntaxError: "),
    "two-classes": ("class A: pass\nclass B: pass\n", "handler contract broken: ValueError: Expected only one class"),
    "exits": ("import sys\nsys.exit(3)\n", "process exited: SystemExit: 3"),
    "dies": (
        "import os\nprint('last words', flush=True)\nos._exit(7)\n",
        "process exited: the process ended with status 7: last words",
    ),
    "greedy": ("raise MemoryError\n", "out of memory: MemoryError"),
    "gpu": ("raise RuntimeError('CUDA out of memory')\n", "CUDA out of memory: RuntimeError: CUDA out of memory"),
    "no-envelope": (NOOP, "handler not found: HandlerMissing: no request envelope 'nonsense'"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What is said about all of them, checked at once."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    for name, (source, _) in HANDLERS.items():
        pack(bench.store, name, source)
    return bench.check("all", service_envelope="nonsense")


@pytest.mark.parametrize("name", HANDLERS)
def test_handlers_that_cannot_be_imported(broken: Mapping[str, Sequence[str]], name: str) -> None:
    (line,) = broken[f"{name}.mar"]
    assert line.startswith(f"ERROR {HANDLERS[name][1]}")


def test_the_place_in_the_handler_is_told(broken: Mapping[str, Sequence[str]]) -> None:
    """Without the directory that it was unpacked to."""
    (line,) = broken["missing-module.mar"]
    assert '(File "handler.py", line 1, in <module>)' in line


def test_a_handler_that_hangs_is_ended(bench: Bench) -> None:
    """Its time is that of a load. A program that it has started goes with it."""
    source = f"""
    import subprocess, sys, time
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)  # {bench.directory}"])
    time.sleep(600)
    """
    pack(bench.store, "slow", source, config="startupTimeout: 1\n")
    (line,) = bench.check("slow.mar")["slow.mar"]
    assert line.startswith("ERROR importing the handler takes longer than 1 s (startupTimeout). ")
    mark = str(bench.directory)
    eventually(lambda: not any(mark in str(process.info["cmdline"]) for process in psutil.process_iter(["cmdline"])))


def test_handlers_see_what_workers_see(bench: Bench) -> None:
    """Directory, environment, search path: what is hidden is not there, what is set is."""
    source = """
    import os, sys
    import beside
    assert os.environ["TS_DECODE_INPUT_REQUEST"] == "false" and "CHECK_SECRET" not in os.environ
    assert os.path.exists("handler.py") and "torch" not in sys.modules
    assert __import__("elsewhere").HERE
    def handle(data, context): return data
    """
    (bench.directory / "site").mkdir()
    (bench.directory / "site" / "elsewhere.py").write_text("HERE = True\n")
    bench.environ |= {"PYTHONPATH": str(bench.directory / "site"), "CHECK_SECRET": "x"}
    pack(bench.store, "m", source, files={"beside.py": "X = 1\n"})
    hidden = patterns(".*_SECRET")[0]
    assert bench.check("m.mar", decode_input_request="false", blacklist_env_vars=hidden) == {}


def test_archives_that_cannot_be_opened(bench: Bench) -> None:
    """Named for the start they are errors, in the store alone they are not."""
    (bench.store / "junk.mar").write_text("junk")
    (bench.store / "other.mar").write_text("junk")
    told = bench.check("junk.mar", "gone.mar", "../up.mar")
    assert told["junk.mar"][0].startswith(
        "ERROR InvalidModelException: Failed to save model: junk.mar (it is not a zip"
    )
    assert told["other.mar"][0].startswith("WARN InvalidModelException: ")
    assert told["gone.mar"] == [
        "ERROR ModelNotFoundException: Model not found at: gone.mar. Correct the name, or pack it again."
    ]
    assert told["../up.mar"][0].startswith("ERROR ModelNotFoundException: Relative path is not allowed in url: ")


def test_urls_are_not_fetched(bench: Bench) -> None:
    """What an earlier start has downloaded is looked at."""
    (bench.store / "here.mar").write_text("junk")
    urls = ["https://one.example/there.mar", "https://one.example/here.mar", "https://two.example/there.mar"]
    told = bench.check(*urls, allowed_urls=patterns("https://one.*"))
    assert told[urls[0]] == ["INFO it is downloaded when the server starts, and not looked at here."]
    assert told["here.mar"][0].startswith("ERROR InvalidModelException: ")
    assert told[urls[2]][0].startswith(f"ERROR Given URL {urls[2]} does not match any allowed URL(s). ")


def test_options_of_a_model(bench: Bench) -> None:
    """What the log of a registration would warn of, with the archive in front."""
    pack(bench.store, "m", NOOP, config="batchsize: 3\nbatchSize: x\nmaxWorkers: 2\n")
    pack(bench.store, "broken", NOOP, config="a: [")
    entry = {"m": {"1.0": {"batchSiz": 2}}}
    told = bench.check("m.mar", "broken.mar", models=models(json.dumps(entry)))
    said = "\n".join(told["m.mar"])
    for text in (
        "WARN Unknown key batchsize: did you mean batchSize? (model-config.yaml of model m 1.0)",
        "WARN Invalid batchSize: x, should be integer (model-config.yaml of model m 1.0)",
        "WARN Invalid model config in mar, minWorkers:0, maxWorkers:2",
        "WARN Unknown parameter of model: m:1.0, parameter: batchSiz: did you mean batchSize?",
    ):
        assert text in said, said
    (line,) = told["broken.mar"]
    assert line.startswith("ERROR Failed to parse model config file model-config.yaml: ") and "no worker loads" in line


def test_files_that_the_manifest_names(bench: Bench) -> None:
    directory = bench.store / "m"
    (directory / "MAR-INF").mkdir(parents=True)
    manifest = {"model": {"modelName": "m", "handler": "h.py", "serializedFile": "w.pt", "modelFile": "h.py"}}
    (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (directory / "h.py").write_text(BOTH)
    (line,) = bench.check("m")["m"]
    assert line.startswith("ERROR the manifest names w.pt (serializedFile), and there is no such file. ")


MANIFESTS = {
    "blank": (b"", "ERROR InvalidModelException: Missing Model entry in manifest file."),
    "bytes": (b"\xff\xfe{}", "ERROR InvalidModelException: Failed to parse signature.json."),
    "list": (b"[1]", "ERROR InvalidModelException: Failed to parse signature.json."),
    "native": (b'{"model": {"handler": "h.py"}, "runtime": "LSP"}', "ERROR ModelException: Unsupported runtime: LSP. "),
    "slash": (
        b'{"model": {"modelName": "a/b", "handler": "h.py"}}',
        "ERROR BadRequestException: Model name contains a slash or a control character: 'a/b'",
    ),
    "unnamable": (
        b'{"model": {"modelVersion": "1/0", "handler": "h.py"}}',
        "WARN no URL can name version '1/0': REST calls reach it only while it is the default",
    ),
    "upward": (b'{"model": {"handler": "../up.py"}}', "ERROR handler not found: "),
    "null": (b'{"model": {"handler": "h\\u0000.py"}}', "ERROR handler "),
    "config": (
        b'{"model": {"handler": "h.py", "configFile": "../c.yaml"}}',
        "ERROR Failed to parse model config file ",
    ),
    "requirements": (b'{"model": {"handler": "h.py", "requirementsFile": "odd.txt"}}', "WARN odd.txt: nobody-has-this"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What is said about model directories with these manifests, checked at once."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    for name, (manifest, _) in MANIFESTS.items():
        directory = bench.store / name
        (directory / "MAR-INF").mkdir(parents=True)
        (directory / "MAR-INF" / "MANIFEST.json").write_bytes(manifest)
        (directory / "h.py").write_text(BOTH)
        (directory / "odd.txt").write_bytes(b"\xff\xfe\nnobody-has-this\n-e .\n\0\n")
    return bench.check("all")


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_of_all_sorts(odd: Mapping[str, Sequence[str]], name: str) -> None:
    """Whatever is in an archive, the check goes on."""
    assert odd[name][0].startswith(MANIFESTS[name][1])


def test_packages_that_nobody_installs(bench: Bench) -> None:
    pack(bench.store, "m", NOOP, requirements="nobody-has-this>=2\npyyaml\n")
    (line,) = bench.check("m.mar")["m.mar"]
    assert line.startswith(
        "WARN requirements.txt: nobody-has-this>=2 is not installed, and install_py_dep_per_model is off. "
    )


def test_packages_are_installed_as_a_start_would(bench: Bench) -> None:
    """The handler finds them; those that pip does not find are an error."""
    wheels = bench.directory / "wheels"
    make_wheel(wheels, "checkup_fruit")
    settings = {
        "install_py_dep_per_model": True,
        "wheel_directory": wheels,
        "environment_cache": bench.temp / "environments",
    }
    pack(bench.store, "good", f"import checkup_fruit\n{BOTH}", requirements="checkup_fruit\n")
    pack(bench.store, "bad", NOOP, requirements="nobody-has-this>=2\n")
    told = bench.check("good.mar", "bad.mar", **settings)
    assert list(told) == ["bad.mar"]
    (line,) = told["bad.mar"]
    assert line.startswith("ERROR ModelException: Custom pip package installation failed for model bad: No matching")


def test_a_saved_configuration_that_names_what_is_gone(bench: Bench) -> None:
    pack(bench.store, "a", NOOP)
    entry = {"defaultVersion": True, "minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 1}
    saved = {name: {"1.0": {**entry, "marName": f"{name}.mar"}} for name in ("a", "gone")}
    snapshot = parse_snapshot(json.dumps({"modelCount": 2, "models": saved}))
    told = bench.check(model_snapshot=snapshot)
    assert told == {
        "gone.mar": [
            "ERROR Model archive file for model gone not found in model store: the server does not start. "
            "Put it back, or remove the model from model_snapshot."
        ]
    }


def test_odd_files_of_an_archive(bench: Bench) -> None:
    """What is served all the same is a warning; what the import shows is told once."""
    files = {"beside.py": "def (:\n", "fine.py": "X = 1\n"}
    pack(bench.store, "m", NOOP, files=files, requirements="==nonsense==\n")
    pack(bench.store, "broken", "def (:\n")
    told = bench.check("m.mar", "broken.mar")
    places = [line.removeprefix("WARN ").partition(": ")[0] for line in told["m.mar"]]
    assert places == ["requirements.txt, line 1", "beside.py, line 1"]
    (line,) = told["broken.mar"]
    assert line.startswith("ERROR handler cannot be imported: SyntaxError: ")


def test_two_archives_of_one_version(bench: Bench) -> None:
    pack(bench.store, "m", NOOP)
    pack(bench.store, "m", NOOP, archive="copy")
    (line,) = bench.check("m.mar", "m=copy.mar")["copy.mar"]
    assert line.startswith("WARN version 1.0 of model m comes from m.mar already: this archive is left out. ")


def test_more_gpus_than_there_are(bench: Bench) -> None:
    bench.gpus = 2
    pack(bench.store, "m", NOOP, config="deviceType: gpu\nparallelType: custom\nparallelLevel: 4\n")
    (line,) = bench.check("m.mar")["m.mar"]
    assert line.startswith("ERROR parallelLevel is 4, and there are not so many GPUs for a worker. ")


def test_nothing_to_load(bench: Bench) -> None:
    (finding,) = bench.findings()
    assert str(finding).startswith("INFO models: none is loaded at the start. ")


def test_whoever_has_heard_enough_waits_for_nobody(bench: Bench) -> None:
    """A check that is given up ends what runs."""
    (bench.store / "a.mar").write_text("junk")
    for number in range(6):
        pack(bench.store, f"slow{number}", "import time\ntime.sleep(600)\n")
    findings = bench.findings("all")
    assert next(findings).where == "a.mar"
    findings.close()  # type: ignore[attr-defined]


def test_more_workers_than_are_ever_started(bench: Bench) -> None:
    pack(bench.store, "many", NOOP, config="minWorkers: 1025\nmaxWorkers: 1025\n")
    text = "Too many workers for model many: 1025. At most 1024 can be asked for."
    remedy = "Lower its minWorkers, or default_workers_per_model."
    assert bench.check("many.mar") == {"many.mar": [f"ERROR {text} {remedy}"]}
