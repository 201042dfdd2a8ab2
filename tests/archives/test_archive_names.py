"""Names of files, of unnamed models, and the names that are refused."""

from __future__ import annotations

import pytest

from modelserver.archives.naming import check_model_name, is_reachable, local_file_name, remote_file_name
from modelserver.errors import BadRequest


@pytest.mark.parametrize("name", ["a/b", "../x", "a\nb", "a\x00", "\x7f", "a\x85"])
def test_unreachable_names_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_model_name(name)


@pytest.mark.parametrize("name", ["a b", "é", "a.b-c_d", "..", "x:y"])
def test_odd_names_that_a_path_can_hold_are_accepted(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize(
    ("version", "reachable"),
    [("1.0", True), ("a b", True), ("1\x01", True), ("1%2F0", True), ("1/0", False), ("", False), ("..", False)],
)
def test_versions_that_a_path_can_name(version: str, reachable: bool) -> None:
    assert is_reachable(version) == reachable
    assert not is_reachable("all"), "which means every version"


@pytest.mark.parametrize(("url", "name"), [("a/b.mar", "b.mar"), ("/x/y/", "y"), (".", ""), ("/", ""), ("./.", "")])
def test_local_file_names(url: str, name: str) -> None:
    assert local_file_name(url) == name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/b.mar", "b.mar"),
        ("http://h/b.mar?x=/c.mar", "b.mar"),
        ("http://h/b.mar#c", "b.mar"),
        ("http://h/a%2Fb%20c.mar", "a%2Fb%20c.mar"),
        ("file:///srv/b.mar", "b.mar"),
    ],
)
def test_remote_file_names(url: str, name: str) -> None:
    assert remote_file_name(url) == name


@pytest.mark.parametrize("url", ["http://h", "http://h/", "http://h/.", "http://[/a.mar"])
def test_urls_without_a_file_name(url: str) -> None:
    with pytest.raises(ValueError):
        remote_file_name(url)
