"""Packages that a model brings: installed when it is registered, from its own requirements."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.server import ContractServer
from harness.wheels import make_wheel

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"install_py_dep_per_model": "true"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the only package that can be had."""
    return make_wheel(tmp_path_factory.mktemp("wheels"), "brought").parent


def requirements(wheels: Path, name: str) -> str:
    return f"--no-index\n-f {wheels}\n{name}\n"


@check("runtime", 26)
def test_a_required_package_is_importable(server: ContractServer, wheels: Path) -> None:
    """It lies in the model's own directory."""
    with server.model("equipped", requirements=requirements(wheels, "brought")):
        answer = server.ask("equipped", do="import", module="brought")
        assert answer.status_code == 200, answer.text
        directory = server.facts("equipped", 1)[0]["model_dir"]
        assert Path(answer.text).parent == Path(directory, "brought")
        server.logs("ts_log.log", "Installed custom pip packages for model equipped")


@check("runtime", 26)
@check("model config", 13)
def test_a_model_may_have_its_own_environment(server: ContractServer, wheels: Path) -> None:
    """Its worker runs the python in there, and still finds what the server has."""
    with server.model("apart", requirements=requirements(wheels, "brought"), config="useVenv: true\n"):
        assert server.describe("apart")["useVenv"] is True
        facts = server.ask("apart", do="facts").json()
        assert facts["python"].startswith(facts["model_dir"] + "/venv/bin/")
        assert Path(server.ask("apart", do="import", module="brought").text).is_relative_to(
            facts["model_dir"] + "/venv"
        )
        assert server.ask("apart", do="import", module="yaml").status_code == 200


@check("runtime", 26)
@fixed("failed registration")
def test_a_package_that_cannot_be_had_fails_the_registration(server: ContractServer, wheels: Path) -> None:
    """Nothing stays registered."""
    server.prepare("unequipped", requirements=requirements(wheels, "surely-not-there"))
    answer = server.register("unequipped.mar")
    body = answer.json()
    assert (answer.status_code, body["code"], body["type"]) == (400, 400, "ModelException")
    assert body["message"] == "Custom pip package installation failed for model unequipped"
    assert server.status_of("unequipped") == 404
