"""Archives that come from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from contract.rest_server import error
from contract.server import ContractServer, free_ports
from harness.archives import NOOP, pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"allowed_urls": "file://.*,HTTP://127.0.0.1:.*/.*\\\\.mar"}


class _Quiet(SimpleHTTPRequestHandler):
    """Says nothing on the console."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server with its directory."""
    directory = tmp_path_factory.mktemp("site")
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    serving = Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    yield f"http://127.0.0.1:{web.server_port}", directory
    web.shutdown()
    serving.join()
    web.server_close()


@check("rest management", 12)
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_download_lives_as_long_as_its_model(server: ContractServer, site: tuple[str, Path], scheme: str) -> None:
    """It is a file of the store until then, and in the way of a second one."""
    address, directory = site
    name = f"by-{scheme}"
    pack(directory, name, NOOP)
    url = f"{address}/{name}.mar" if scheme == "http" else f"file://{directory}/{name}.mar"
    assert server.register(url).status_code == 200
    assert server.describe(name)["modelUrl"] == url
    assert (server.store / f"{name}.mar").is_file()
    again = error(server.register(url))
    assert again == (500, "InternalServerException", f"Model file already exists {name}.mar")
    server.delete(name)
    eventually(lambda: not (server.store / f"{name}.mar").exists())
    assert (directory / f"{name}.mar").exists()


@check("rest management", 13)
def test_downloads_that_fail(server: ContractServer, site: tuple[str, Path]) -> None:
    """For want of a file or of a server; nothing stays in the store."""
    for url in (f"{site[0]}/none.mar", f"http://127.0.0.1:{free_ports(1)[0]}/x.mar", f"file://{site[1]}/none.mar"):
        message = f"Failed to download archive from: {url}"
        assert error(server.register(url)) == (400, "DownloadArchiveException", message)
    assert not list(server.store.glob("none*"))


@fixed("useless downloads")
def test_a_download_of_no_use_does_not_stay(server: ContractServer, site: tuple[str, Path]) -> None:
    """A better archive can be had from the same place."""
    address, directory = site
    (directory / "second.mar").write_bytes(b"no archive")
    assert server.register(f"{address}/second.mar").status_code == 400
    assert not (server.store / "second.mar").exists()
    pack(directory, "second", NOOP)
    assert server.register(f"{address}/second.mar").status_code == 200
    server.delete("second")


@check("rest management", 14)
@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/m.mar",
        "http://127.0.0.1:1/m.mar?x=1",
        "https://127.0.0.1:1/m.mar",
        "x-http://127.0.0.1:1/m.mar",
    ],
)
def test_urls_that_are_not_allowed(server: ContractServer, url: str) -> None:
    """A pattern stands for the whole of a URL."""
    status, type_, message = error(server.register(url))
    assert (status, type_) == (404, "ModelNotFoundException")
    if url.startswith("http"):
        assert message == f"Given URL {url} does not match any allowed URL(s)"


@check("rest management", 14)
def test_allowed_urls_have_no_letter_case(server: ContractServer, site: tuple[str, Path]) -> None:
    """Neither the pattern's nor the client's counts."""
    url = f"{site[0]}/none.mar".replace("http", "Http")
    assert error(server.register(url))[1] == "DownloadArchiveException"
