"""Models that come from elsewhere, to a real server: web servers that hang or lie, object stores, ends in between."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from harness.archives import NOOP, pack
from harness.origin import Origin, start
from harness.s3 import BUCKET, S3, local_s3
from harness.server import ServerProcess, eventually

LIMIT = 100_000  # bytes of an archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("packed") / "store"
    folder.mkdir()
    return (folder / pack(folder, "m", NOOP)).read_bytes()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with local_s3() as storage:
        yield storage


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, s3: S3) -> Iterator[ServerProcess]:
    config = {
        "allowed_urls": f"http://127.0.0.1:.*,s3://{BUCKET}/.*",
        "max_archive_size": LIMIT,
        "max_archive_members": 10,
        "download_timeout": 1,
    }
    with ServerProcess(tmp_path_factory.mktemp("server"), config=config, environment=s3.environment) as process:
        yield process


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """Where calls wait that take long."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


def stored(server: ServerProcess) -> list[str]:
    return sorted(path.name for path in server.store.iterdir())


def cause(answer: httpx.Response) -> str:
    """Why a download has failed."""
    error = answer.json()
    assert (answer.status_code, error["type"]) == (400, "DownloadArchiveException"), answer.text
    assert error["message"].startswith("Failed to download archive from: ")
    assert error["cause"]["reason"] == "download failed"
    return str(error["cause"]["detail"])


def hanging(origin: Origin, path: str, *content: bytes) -> str:
    """The url of something that begins, and then never ends."""

    def hang(request: BaseHTTPRequestHandler) -> None:
        start(request, Content_Length="50000")
        for piece in content:
            request.wfile.write(piece)
        origin.hang()

    return origin.script(path, hang)


def test_a_model_from_a_web_server(server: ServerProcess, origin: Origin, archive: bytes) -> None:
    url = origin.redirect("/here/web.mar", "/there/other.mar")
    origin.give("/there/other.mar", archive)
    assert server.register(url, model_name="web").status_code == 200
    assert server.predict("web").text == "ok"
    assert server.describe("web")["modelUrl"] == url
    assert stored(server) == ["web.mar"]
    again = server.register(url, model_name="again")
    assert (again.status_code, again.json()["message"]) == (500, "Model file already exists web.mar")
    assert server.request("DELETE", "/models/web", "Management").status_code == 200
    assert stored(server) == []


def test_why_a_model_cannot_be_had(server: ServerProcess, origin: Origin, archive: bytes) -> None:
    assert cause(server.register(origin.url("/none.mar"))) == "HTTP 404 Not Found"
    assert cause(server.register(origin.redirect("/r.mar", "https://evil.example/m.mar?key=x"))) == (
        "redirected to https://evil.example/m.mar: that does not match any allowed URL(s)"
    )
    assert cause(server.register(origin.give("/large.mar", bytes(LIMIT + 1)))) == (
        f"the archive is larger than {LIMIT} bytes (max_archive_size)"
    )
    assert cause(server.register(hanging(origin, "/hang.mar", archive))) == "no progress for 1 s"
    eventually(lambda: "no progress for 1 s" in server.output)
    assert stored(server) == []


def test_an_archive_with_too_many_members(server: ServerProcess, tmp_path: Path) -> None:
    pack(server.store, "many", NOOP, files={f"{number}.txt": "" for number in range(10)})
    error = server.register("many.mar").json()
    assert (error["code"], error["message"]) == (500, "Failed to save model: many.mar")
    assert error["cause"]["detail"] == "it has more than 10 members (max_archive_members)"
    (server.store / "many.mar").unlink()


def test_a_model_from_s3(server: ServerProcess, s3: S3, archive: bytes) -> None:
    s3.put("deep/key/object.mar", archive)
    assert server.register(f"s3://{BUCKET}/deep/key/object.mar", model_name="object").status_code == 200
    assert server.predict("object").text == "ok"
    server.request("DELETE", "/models/object", "Management")
    url = s3.url("deep/key/object.mar")
    assert cause(server.register(url)).startswith("HTTP 403")
    assert server.register(url, model_name="object", s3_sse_kms="true").status_code == 200
    server.request("DELETE", "/models/object", "Management")
    with s3.unchecked():
        assert server.register(s3.presigned("deep/key/object.mar"), model_name="object").status_code == 200
    server.request("DELETE", "/models/object", "Management")
    other = server.register("s3://others/m.mar")
    assert (other.status_code, other.json()["message"]) == (404, "Model not found at: s3://others/m.mar")
    assert stored(server) == []


def test_one_url_by_several_at_once(
    server: ServerProcess, origin: Origin, archive: bytes, aside: ThreadPoolExecutor
) -> None:
    def slow(request: BaseHTTPRequestHandler) -> None:
        start(request, Content_Length=str(len(archive)))
        request.wfile.write(archive[:10])
        origin.hung.set()
        assert origin.release.wait(60)
        request.wfile.write(archive[10:])

    url = origin.script("/same.mar", slow)
    first = aside.submit(server.register, url, model_name="same")
    assert origin.hung.wait(60)
    second = server.register(url, model_name="same")
    assert (second.status_code, second.json()["message"]) == (500, "Model file already exists same.mar")
    origin.release.set()
    assert first.result(60).status_code == 200
    assert server.predict("same").text == "ok"
    server.request("DELETE", "/models/same", "Management")


def test_a_client_that_leaves_gets_its_model(server: ServerProcess, origin: Origin, archive: bytes) -> None:
    def slow(request: BaseHTTPRequestHandler) -> None:
        origin.hang()
        start(request, Content_Length=str(len(archive)))
        request.wfile.write(archive)

    url = origin.script("/left.mar", slow)
    place = httpx.URL(server.url("Management"))
    with socket.create_connection((place.host, place.port or 80)) as client:
        target = f"/models?{urlencode({'url': url, 'model_name': 'left'})}"
        client.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert origin.hung.wait(60)
    origin.release.set()
    eventually(lambda: server.request("GET", "/models/left", "Management").status_code == 200)
    server.request("DELETE", "/models/left", "Management")
    assert stored(server) == []


def begin_hanging(server: ServerProcess, origin: Origin, aside: ThreadPoolExecutor) -> Future[httpx.Response]:
    """A registration whose download hangs; the server serves nevertheless."""
    answer = aside.submit(server.register, hanging(origin, "/hang.mar", b"PK"))
    assert origin.hung.wait(60)
    eventually(lambda: any(name.endswith(".part") for name in stored(server)))
    assert server.request("GET", "/ping").status_code == 200
    return answer


def test_the_server_stops_while_a_download_hangs(tmp_path: Path, origin: Origin, aside: ThreadPoolExecutor) -> None:
    with ServerProcess(tmp_path, config={"drain_timeout": 0}) as server:
        answer = begin_hanging(server, origin, aside)
        assert server.stop() == 0
        with suppress(httpx.TransportError):  # it may be cut off
            assert answer.result(60).status_code == 503
        assert stored(server) == []


def test_the_server_is_killed_while_a_download_hangs(tmp_path: Path, origin: Origin, aside: ThreadPoolExecutor) -> None:
    with ServerProcess(tmp_path) as server:
        answer = begin_hanging(server, origin, aside)
        server.stop(signal.SIGKILL)
        eventually(lambda: stored(server) == [])
        with pytest.raises(httpx.TransportError):
            answer.result(60)


def test_a_start_up_model_is_downloaded_once(tmp_path: Path, origin: Origin, archive: bytes) -> None:
    url = origin.give("/boot.mar", archive)
    options: dict[str, Any] = {"models": [f"boot={url}"]}
    with ServerProcess(tmp_path, **options) as server:
        eventually(lambda: server.ready_workers("boot"))
        assert stored(server) == ["boot.mar"]
    assert stored(server) == ["boot.mar"]
    with ServerProcess(tmp_path, **options) as server:
        eventually(lambda: server.ready_workers("boot"))
        assert f"boot.mar is there already: {url} is not downloaded again" in server.output
        assert origin.asked == ["/boot.mar"]
        assert server.request("DELETE", "/models/boot", "Management").status_code == 200
        assert stored(server) == []
        assert server.register(url, model_name="boot").status_code == 200
