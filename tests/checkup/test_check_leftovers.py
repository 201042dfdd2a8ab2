"""Packages and commands of TorchServe's that are in the way."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from modelserver.checkup.leftovers import RIVALS, damaged, examine_installation, rivals, scripts, shadowed

MODULE = b"NAME = 'ours'\n"
SCRIPT = "#!python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory of installed packages with one file of ours and its command."""
    facts = tmp_path / "modelserver-1.0.dist-info"
    facts.mkdir()
    (tmp_path / "ts").mkdir()
    (tmp_path / "ts" / "context.py").write_bytes(MODULE)
    digest = base64.urlsafe_b64encode(hashlib.sha256(MODULE).digest()).rstrip(b"=").decode()
    record = f"ts/context.py,sha256={digest},{len(MODULE)}\nother/x.py,sha256=AAAA,1\nts/version.txt,sha256=AAAA,1\n"
    (facts / "RECORD").write_text(record)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: modelserver\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[console_scripts]\ntorchserve = modelserver.cli:main\n")
    return tmp_path


def own(site: Path) -> Distribution:
    return PathDistribution(site / "modelserver-1.0.dist-info")


def test_this_installation_is_sound() -> None:
    errors = [finding for finding in examine_installation() if finding.severity == "ERROR"]
    assert errors == []


@pytest.mark.parametrize("name", RIVALS)
def test_what_brings_files_of_the_same_names(name: str) -> None:
    (found,) = rivals({name: "0.12.0", "torch": "2.2", "modelserver": "1.0"})
    assert str(found).startswith(f"ERROR installation: {name} 0.12.0 is installed: it brings the package ")
    assert found.remedy.startswith(f"Run pip uninstall -y {name}. Install modelserver again: ")


def test_files_that_another_package_has_written_over(site: Path) -> None:
    assert list(damaged(own(site))) == [], "nothing but our modules counts"
    (site / "ts" / "context.py").write_text("NAME = 'theirs'\n")
    (found,) = damaged(own(site))
    assert found.what == "ts/context.py is not ours"
    (site / "ts" / "context.py").unlink()
    (found,) = damaged(own(site))
    assert found.what == "ts/context.py is gone: another package has been uninstalled over it"


def test_commands_that_lead_elsewhere(site: Path) -> None:
    ours, theirs = site / "bin", site / "other"
    for folder, module in ((ours, "modelserver.cli"), (theirs, "ts.model_server")):
        folder.mkdir()
        (folder / "torchserve").write_text(SCRIPT.format(module=module))
        (folder / "torchserve").chmod(0o755)
    assert list(scripts(own(site), {"PATH": str(ours)}, ours)) == []
    assert list(scripts(own(site), {"PATH": str(site)}, ours)) == [], "none is found"
    (found,) = scripts(own(site), {"PATH": f"{theirs}:{ours}"}, ours)
    assert (found.severity, found.where) == ("WARN", f"{theirs}/torchserve")
    (found,) = scripts(own(site), {"PATH": str(theirs)}, theirs)
    assert (found.severity, found.what) == ("ERROR", "the command torchserve is not modelserver's")


def test_another_package_of_the_name(site: Path) -> None:
    """Seen from a root that is not that of the package found."""
    (found,) = shadowed(site)
    assert found.severity == "ERROR" and found.what.startswith("the package ts is not modelserver's: ")
