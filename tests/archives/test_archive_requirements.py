"""What a requirements file asks for: two files with the same facts get the same packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.archives.requirements import NotShareable, facts_of


class Model:
    """A model directory with requirements."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def facts(self, text: str, name: str = "requirements.txt") -> list[str]:
        self.write(name, text)
        return list(facts_of(self.directory / name, self.directory))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


def test_comments_and_blanks_count_for_nothing(model: Model) -> None:
    assert model.facts("# all\n\n  one==1  # why\ntwo \\\n  >=2\nurl @ https://h/x.whl#sha256=1\n") == [
        "one==1",
        "two   >=2",
        "url @ https://h/x.whl#sha256=1",
    ]


@pytest.mark.parametrize("option", ["-r more.txt", "-rmore.txt", "--requirement=more.txt", "-c more.txt"])
def test_files_that_it_includes_count_from_where_it_lies(model: Model, option: str) -> None:
    model.write("sub/more.txt", "three\n")
    assert model.facts(f"{option}\n", "sub/requirements.txt") == [option, "three"]


def test_a_file_that_is_not_there(model: Model) -> None:
    with pytest.raises(FileNotFoundError):
        model.facts("-r more.txt\n")


def test_a_file_that_includes_itself(model: Model) -> None:
    with pytest.raises(NotShareable):
        model.facts("-r requirements.txt\n")


@pytest.mark.parametrize(
    "line", ["./own-1-py3-none-any.whl", "own @ file:{}/own-1-py3-none-any.whl", "'./own-1-py3-none-any.whl'[all]"]
)
def test_a_wheel_of_the_model_counts_by_its_content(model: Model, line: str) -> None:
    line = line.format(model.directory)
    model.write("own-1-py3-none-any.whl", "one")
    before = model.facts(f"{line}\n")
    model.write("own-1-py3-none-any.whl", "two")
    after = model.facts(f"{line}\n")
    assert before[0] == after[0] == line
    assert len(before) == len(after) == 2
    assert before != after


def test_a_folder_counts_by_the_content_of_its_files(model: Model) -> None:
    model.write("own/setup.py", "one")
    before = model.facts("./own\n")
    model.write("own/more.py", "two")
    assert len(model.facts("./own\n")) == len(before) + 1 == 3


LONG = "-".join(("--find", "links"))


@pytest.mark.parametrize("option", ["-f links", "-flinks", f"{LONG} links", f"{LONG}=file:{{}}/links"])
def test_folders_of_wheels_count_by_their_files(model: Model, option: str) -> None:
    model.write("links/a.whl", "a")
    before = model.facts(f"{option.format(model.directory)}\n")
    model.write("links/b.whl", "b")
    assert len(model.facts(f"{option.format(model.directory)}\n")) == len(before) + 1 == 3


@pytest.mark.parametrize("line", ["-e .", "-e.", "--editable ./own", "--editable=."])
def test_an_editable_installation_cannot_be_shared(model: Model, line: str) -> None:
    with pytest.raises(NotShareable):
        model.facts(f"{line}\n")


@pytest.mark.parametrize("line", ["'unmatched", "== 3", "-i https://h/simple", "-f https://h/wheels"])
def test_what_pip_may_refuse_is_left_to_pip(model: Model, line: str) -> None:
    assert model.facts(f"{line}\n") == [line]
