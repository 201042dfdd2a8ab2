"""From the url of a registration to the file that is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.rest_server import error, make
from contract.server import ContractServer
from harness.archives import NOOP, pack
from harness.origin import Origin
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"allowed_urls": "http://127.0.0.1:[0-9]+/open/.*,file://.*", "download_timeout": "1"}


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A web server that allows nothing but what a test puts there."""
    with Origin() as server:
        yield server


def packed(directory: Path, name: str) -> bytes:
    """An archive of a model of this name."""
    directory.mkdir(exist_ok=True)
    return (directory / pack(directory, name, NOOP)).read_bytes()


@check("archive", 8)
@check("archive", 10)
def test_the_copy_has_the_name_at_the_end_of_the_path(server: ContractServer, origin: Origin, tmp_path: Path) -> None:
    """The query belongs to the request, not to the name; the server's own suggestion counts for nothing."""
    origin.give("/open/a/query.mar", packed(tmp_path / "s", "query"), Content_Disposition="attachment; filename=x.mar")
    url = origin.url("/open/a/query.mar?X-Signature=a/b.mar&n=1")
    assert server.register(url).status_code == 200
    assert origin.asked == ["/open/a/query.mar?X-Signature=a/b.mar&n=1"]
    assert (server.store / "query.mar").is_file()
    assert server.describe("query")["modelUrl"] == url
    server.delete("query")
    eventually(lambda: not (server.store / "query.mar").exists())


@check("archive", 8)
@check("archive", 9)
def test_folders_before_a_name_in_the_store_count_for_nothing(server: ContractServer) -> None:
    """The file is the one in the store."""
    pack(server.store, "probe", NOOP)
    for url in ("probe.mar", "a/probe.mar", "/no/such/place/probe.mar"):
        assert server.register(url, workers=0).status_code == 200
        server.delete("probe")
        assert (server.store / "probe.mar").exists()


@check("archive", 8)
@pytest.mark.parametrize(
    ("url", "status", "type_", "message"),
    [
        ("", 404, "ModelNotFoundException", "empty url"),
        ("../a.mar", 404, "ModelNotFoundException", "Relative path is not allowed in url: ../a.mar"),
        (
            "http://127.0.0.1:1/open/../a.mar",
            404,
            "ModelNotFoundException",
            "Relative path is not allowed in url: http://127.0.0.1:1/open/../a.mar",
        ),
        (
            "http://127.0.0.1:1/closed/a.mar",
            404,
            "ModelNotFoundException",
            "Given URL http://127.0.0.1:1/closed/a.mar does not match any allowed URL(s)",
        ),
        (
            "HTTPS://127.0.0.1:1/open/a.mar",
            404,
            "ModelNotFoundException",
            "Given URL HTTPS://127.0.0.1:1/open/a.mar does not match any allowed URL(s)",
        ),
        (
            "http://127.0.0.1:1/open/a.mar",
            400,
            "DownloadArchiveException",
            "Failed to download archive from: http://127.0.0.1:1/open/a.mar",
        ),
        (
            "file:///no/such/file.mar",
            400,
            "DownloadArchiveException",
            "Failed to download archive from: file:///no/such/file.mar",
        ),
        ("s3://bucket/a.mar", 404, "ModelNotFoundException", "Model not found at: s3://bucket/a.mar"),
        ("ftp://host/a.mar", 404, "ModelNotFoundException", "Model not found at: ftp://host/a.mar"),
        ("/etc/hostname", 404, "ModelNotFoundException", "Model not found at: /etc/hostname"),
    ],
)
def test_urls_of_no_archive(server: ContractServer, url: str, status: int, type_: str, message: str) -> None:
    """Each says why, and the store stays as it was."""
    before = sorted(server.store.iterdir())
    assert error(server.register(url)) == (status, type_, message)
    assert sorted(server.store.iterdir()) == before


@check("archive", 8)
@pytest.mark.parametrize("status", [404, 403, 500])
def test_answers_without_an_archive(server: ContractServer, origin: Origin, status: int) -> None:
    """Whatever the server has to say."""
    url = origin.give("/open/a.mar", b"<html>no</html>", status)
    message = f"Failed to download archive from: {url}"
    assert error(server.register(url)) == (400, "DownloadArchiveException", message)
    assert not (server.store / "a.mar").exists()


@check("archive", 8)
def test_a_file_of_that_name_is_in_the_way(server: ContractServer, origin: Origin) -> None:
    """Wherever it came from."""
    pack(server.store, "taken", NOOP)
    url = origin.url("/open/taken.mar")
    message = "Model file already exists taken.mar"
    assert error(server.register(url)) == (500, "InternalServerException", message)
    assert origin.asked == []


@check("archive", 10)
def test_a_redirect(server: ContractServer, origin: Origin, tmp_path: Path) -> None:
    """The name is that of the url that was given."""
    origin.give("/open/there/other.mar", packed(tmp_path / "s", "redirected"))
    url = origin.redirect("/open/redirected.mar", origin.url("/open/there/other.mar"))
    assert server.register(url).status_code == 200
    assert (server.store / "redirected.mar").is_file()
    server.delete("redirected")


@fixed("redirected downloads")
def test_a_redirect_to_what_is_not_allowed(server: ContractServer, origin: Origin, tmp_path: Path) -> None:
    """Nobody is asked there."""
    origin.give("/closed/lured.mar", packed(tmp_path / "s", "lured"))
    url = origin.redirect("/open/lured.mar", origin.url("/closed/lured.mar"))
    assert error(server.register(url))[:2] == (400, "DownloadArchiveException")
    assert origin.asked == ["/open/lured.mar"]


@fixed("slow downloads")
def test_a_server_that_does_not_answer(server: ContractServer, origin: Origin) -> None:
    """After `download_timeout` it is given up."""
    url = origin.script("/open/silent.mar", lambda request: origin.hang())
    answer = server.register(url)
    assert error(answer)[:2] == (400, "DownloadArchiveException")
    assert answer.json()["cause"]["detail"] == "no answer within 1 s"


@fixed("signed downloads")
def test_a_signature_without_keys(tmp_path: Path, origin: Origin) -> None:
    """The answer names what is missing."""
    url = origin.url("/open/signed.mar")
    server = make(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        server.environment.pop(name, None)
    with server:
        answer = server.register(url, s3_sse_kms="true")
    assert error(answer) == (400, "DownloadArchiveException", f"Failed to download archive from: {url}")
    assert "AWS_SECRET_ACCESS_KEY" in answer.json()["cause"]["detail"]
    assert origin.asked == []


@check("rest management", 12)
def test_a_signed_download(start_server: Callable[..., ContractServer], origin: Origin, tmp_path: Path) -> None:
    """As S3 demands it."""
    keys = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two", "AWS_DEFAULT_REGION": "eu-west-1"}
    server = start_server(environment=keys)
    url = origin.give("/open/signed.mar", packed(tmp_path / "s", "signed"))
    assert server.register(url, s3_sse_kms="true").status_code == 200
    [headers] = origin.headers
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=one/")
    assert "/eu-west-1/s3/aws4_request" in headers["authorization"]
    assert {"x-amz-content-sha256", "x-amz-date"} <= headers.keys()
    server.delete("signed")


@fixed("start-up downloads")
def test_a_start_up_model_from_elsewhere_starts_twice(tmp_path: Path, origin: Origin) -> None:
    """The second time there is nothing to download."""
    origin.give("/boot.mar", packed(tmp_path / "s", "boot"))
    server = make(tmp_path)
    server.command += ["--models", f"boot={origin.url('/boot.mar')}"]
    for _ in range(2):
        server.lines.clear()
        with server:
            eventually(lambda: server.ready_workers("boot"))
    assert origin.asked == ["/boot.mar"]
