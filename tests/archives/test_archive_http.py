"""Archives from web servers that behave badly: what is followed, what is given up, and why, as the answer tells it."""

from __future__ import annotations

import gzip
import io
import os
import ssl
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from harness.certificates import Certified
from harness.origin import Origin, start
from modelserver.archives.limits import Limits
from modelserver.archives.store import ArchiveStore
from modelserver.errors import Cause, DownloadFailed, InternalError

MANIFEST = b'{"model": {"modelName": "m", "handler": "h.py"}}'
OPEN = "file://.*|http(s)?://.*"


def mar() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("MAR-INF/MANIFEST.json"), MANIFEST)  # without a date: always the same
    return packed.getvalue()


def tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        header = tarfile.TarInfo("m/MAR-INF/MANIFEST.json")
        header.size = len(MANIFEST)
        archive.addfile(header, io.BytesIO(MANIFEST))
    return packed.getvalue()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


class House:
    """A model store that downloads come to."""

    def __init__(self, root: Path, allowed: str = OPEN, **limits: float) -> None:
        self.path = root / "store"
        self.path.mkdir(exist_ok=True)
        self.store = ArchiveStore(self.path, root / "temp", [allowed], limits=Limits(**limits))  # type: ignore[arg-type]

    def stored(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())

    def failure(self, url: str, cause: Cause = Cause.DOWNLOAD) -> str:
        """Why the url cannot be had; nothing stays in the store."""
        before = self.stored()
        with pytest.raises(DownloadFailed) as caught:
            self.store.open(url)
        assert caught.value.message == f"Failed to download archive from: {url}"
        assert self.stored() == before
        certificate = caught.value.certificate
        assert certificate is not None
        assert certificate.cause is cause
        return certificate.detail


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# Names


@pytest.mark.parametrize("tail", ["/a/m.mar", "/a/m.mar?name=other.mar&x=/y/z.mar", "/a/m.mar#other.mar"])
def test_the_name_is_the_end_of_the_path(house: House, origin: Origin, tail: str) -> None:
    url = origin.url(tail)
    origin.give("/a/m.mar", mar(), Content_Disposition='attachment; filename="other.mar"')
    assert house.store.open(url).url == url
    assert house.stored() == ["m.mar"]
    assert origin.asked == [tail.partition("#")[0]]


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(house: House, origin: Origin, status: int) -> None:
    origin.give("/there/other.mar", mar())
    url = origin.redirect("/here/m.mar", "../there/other.mar?x", status)
    house.store.open(url)
    assert house.stored() == ["m.mar"]
    assert origin.asked == ["/here/m.mar", "/there/other.mar?x"]


@pytest.mark.parametrize("status", [300, 304, 305])
def test_other_redirections_are_not(house: House, origin: Origin, status: int) -> None:
    assert house.failure(origin.redirect("/m.mar", "/n.mar", status)).startswith(f"HTTP {status}")
    assert house.failure(origin.script("/n.mar", lambda request: start(request, 302))) == "HTTP 302 Found"


def test_every_hop_must_be_allowed(tmp_path: Path, origin: Origin) -> None:
    house = House(tmp_path, origin.url("/open/.*"))
    origin.give("/closed/m.mar", mar())
    origin.redirect("/open/2.mar", "/closed/m.mar?token=x")
    url = origin.redirect("/open/1.mar", "/open/2.mar")
    closed = origin.url("/closed/m.mar")
    assert house.failure(url) == f"redirected to {closed}: that does not match any allowed URL(s)"
    assert origin.asked == ["/open/1.mar", "/open/2.mar"]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/hostname", "redirected to file:///etc/hostname: neither http nor https"),
        ("http://a@127.0.0.1/m.mar", "the URL contains user information"),
        ("http://127.0.0.1\\m.mar", "the URL contains blanks, control characters or backslashes"),
        ("/a/%2e%2e/m.mar", "the path of the URL leads upwards"),
    ],
)
def test_tricks_do_not_work_behind_a_redirect(house: House, origin: Origin, location: str, reason: str) -> None:
    assert house.failure(origin.redirect("/m.mar", location)) == reason
    assert origin.asked == ["/m.mar"]


def test_a_circle_of_redirects_ends(house: House, origin: Origin) -> None:
    origin.redirect("/n.mar", "/m.mar")
    assert house.failure(origin.redirect("/m.mar", "/n.mar")) == "more than 10 redirects"
    assert len(origin.asked) == 11


# Urls


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://good@127.0.0.1:{port}/m.mar", "the URL contains user information"),
        ("http://127.0.0.1:{port}/a/%2e%2e/m.mar", "the path of the URL leads upwards"),
        ("http://127.0.0.1:{port}/a\\m.mar", "the URL contains blanks, control characters or backslashes"),
        ("http://127.0.0.1:{port}/", "no file name in url: http://127.0.0.1:{port}/"),
        ("ftp://127.0.0.1:{port}/m.mar", "there are no downloads from ftp://"),
    ],
)
def test_urls_that_nobody_is_asked_for(tmp_path: Path, origin: Origin, url: str, reason: str) -> None:
    port = origin.server_address[1]
    house = House(tmp_path, ".*")
    origin.give("/m.mar", mar())
    assert house.failure(url.format(port=port)) == reason.format(port=port)
    assert origin.asked == []


def test_a_proxy_is_asked(house: House, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", origin.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    origin.give("http://models.invalid/m.mar", mar())
    house.store.open("http://models.invalid/m.mar")
    assert house.stored() == ["m.mar"]


# Errors of the server


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (204, "HTTP 204 No Content"),
        (206, "HTTP 206 Partial Content"),
        (401, "HTTP 401 Unauthorized"),
        (404, "HTTP 404 Not Found"),
        (503, "HTTP 503 Service Unavailable"),
    ],
)
def test_an_answer_without_an_archive(house: House, origin: Origin, status: int, reason: str) -> None:
    assert house.failure(origin.give("/m.mar", mar(), status)) == reason


def test_nobody_listens(house: House) -> None:
    with Origin() as gone:
        url = gone.url("/m.mar")
    assert house.failure(url) == "Connection refused"


def test_what_is_no_http(house: House, origin: Origin) -> None:
    def greet(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"220 ftp ready\r\n")

    url = origin.script("/m.mar", greet)
    assert "220 ftp ready" in house.failure(url)
    assert house.failure(origin.script("/n.mar", lambda request: None)) == (
        "Remote end closed connection without response"
    )


def test_what_is_no_tls(house: House, origin: Origin) -> None:
    assert "SSL" in house.failure(origin.url("/m.mar").replace("http:", "https:"))
    assert origin.asked == []


# https


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    """A server whose certificate this machine trusts as long as SSL_CERT_FILE names it."""
    names = Certified.make(authority=True).write_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(names["certificate_file"], names["private_key_file"])
    monkeypatch.setenv("SSL_CERT_FILE", names["certificate_file"])
    with Origin(context) as server:
        yield server


def test_https(house: House, secure: Origin) -> None:
    secure.give("/there/m.mar", mar())
    house.store.open(secure.redirect("/m.mar", "/there/m.mar"))
    assert (house.path / "m.mar").read_bytes() == mar()


def test_an_untrusted_certificate(house: House, secure: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate verify failed" in house.failure(secure.give("/m.mar", mar()))
    assert secure.asked == []


def test_https_is_not_left_for_http(house: House, secure: Origin, origin: Origin) -> None:
    target = origin.give("/m.mar", mar())
    assert house.failure(secure.redirect("/m.mar", target)) == f"redirected to {target}: from https to http"
    house.store.open(origin.redirect("/n.mar", secure.give("/n.mar", mar())))


def test_stop_cuts_https_too(house: House, secure: Origin) -> None:
    def hang(request: BaseHTTPRequestHandler) -> None:
        start(request)
        request.wfile.write(mar())
        secure.hang()

    url = secure.script("/m.mar", hang)
    with ThreadPoolExecutor(1) as thread:
        failure = thread.submit(house.failure, url)
        assert secure.hung.wait(60)
        house.store.stop()
        assert failure.result(60) == "the server stops"


# Bodies


def test_a_body_that_ends_too_early(house: House, origin: Origin) -> None:
    def short(request: BaseHTTPRequestHandler) -> None:
        start(request, Content_Length=str(len(mar()) + 5))
        request.wfile.write(mar())

    assert house.failure(origin.script("/m.mar", short)) == f"got {len(mar())} of {len(mar()) + 5} bytes"


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


@pytest.mark.parametrize("end", ["", "20\r\nabc", "0"])
def test_chunks_that_end_too_early(house: House, origin: Origin, end: str) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        start(request, Transfer_Encoding="chunked", Connection="close")
        request.wfile.write(chunk(mar()) + end.encode())

    url = origin.script("/m.mar", cut)
    if end == "0":  # the last chunk has no more content: nothing is missing
        house.store.open(url)
    else:
        assert house.failure(url)


def test_chunks_and_bodies_without_a_length_are_complete(house: House, origin: Origin) -> None:
    def chunked(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        start(request, Transfer_Encoding="chunked", Connection="close")
        request.wfile.write(chunk(mar()[:9]) + chunk(mar()[9:]) + b"0\r\n\r\n")

    def bare(request: BaseHTTPRequestHandler) -> None:
        start(request)
        request.wfile.write(mar())

    house.store.open(origin.script("/chunked.mar", chunked))
    house.store.open(origin.script("/bare.mar", bare))
    assert (house.path / "chunked.mar").read_bytes() == (house.path / "bare.mar").read_bytes() == mar()


@pytest.mark.parametrize("encoding", ["gzip", "X-GZIP"])
def test_an_encoding_of_the_transfer_is_undone(house: House, origin: Origin, encoding: str) -> None:
    house.store.open(origin.give("/m.mar", gzip.compress(mar()), Content_Encoding=encoding))
    assert (house.path / "m.mar").read_bytes() == mar()
    assert origin.headers[0]["accept-encoding"] == "identity"


def test_an_encoding_that_is_the_archives_own_is_left_alone(house: House, origin: Origin) -> None:
    packed = tar()
    house.store.open(origin.give("/m.tar.gz", packed, Content_Encoding="gzip"))
    assert (house.path / "m.tar.gz").read_bytes() == packed


def test_an_encoding_that_cannot_be_undone(house: House, origin: Origin) -> None:
    assert house.failure(origin.give("/m.mar", b"?", Content_Encoding="br")) == (
        "the server sends it with the encoding br"
    )
    assert house.failure(origin.give("/n.mar", gzip.compress(mar())[:-3], Content_Encoding="gzip"))
    assert house.failure(origin.give("/o.mar", b"no gzip", Content_Encoding="gzip"))


# Sizes


TOO_LARGE = "the archive is larger than 1000 bytes (max_archive_size)"


def test_a_large_archive_is_not_even_begun(tmp_path: Path, origin: Origin) -> None:
    def large(request: BaseHTTPRequestHandler) -> None:
        start(request, Content_Length="1001")
        origin.hang()

    house = House(tmp_path, size=1000)
    assert house.failure(origin.script("/m.mar", large)) == TOO_LARGE
    house.store.open(origin.give("/n.mar", mar()))


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_archive_without_end(tmp_path: Path, origin: Origin, encoding: str) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        start(request, Content_Encoding=encoding)
        piece = bytes(10_000) if encoding == "identity" else gzip.compress(bytes(10_000))
        with suppress(OSError):
            while True:
                request.wfile.write(piece)

    assert House(tmp_path, size=1000).failure(origin.script("/m.mar", endless)) == TOO_LARGE


def test_an_encoding_without_content_does_not_go_on_for_ever(tmp_path: Path, origin: Origin) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        start(request, Content_Encoding="gzip")
        with suppress(OSError):
            while True:
                request.wfile.write(gzip.compress(b"") * 1000)

    assert House(tmp_path, size=1000).failure(origin.script("/m.mar", endless)) == TOO_LARGE


# Time


def test_a_server_that_never_answers(tmp_path: Path, origin: Origin) -> None:
    url = origin.script("/m.mar", lambda request: origin.hang())
    assert House(tmp_path, patience=0.2).failure(url) == "no answer within 0.2 s"


def test_a_head_that_comes_byte_by_byte(tmp_path: Path, origin: Origin) -> None:
    head = b"HTTP/1.0 200 OK\r\nX-Long: " + 10_000 * b"x"
    url = origin.script("/m.mar", lambda request: origin.drip(request, head))
    assert House(tmp_path, patience=0.2).failure(url) == "no answer within 0.2 s"


def test_a_body_that_stands_still(tmp_path: Path, origin: Origin) -> None:
    def still(request: BaseHTTPRequestHandler) -> None:
        start(request, Content_Length="1000")
        request.wfile.write(b"PK")
        origin.hang()

    assert House(tmp_path, patience=0.2).failure(origin.script("/m.mar", still)) == "no progress for 0.2 s"


def test_a_body_that_comes_byte_by_byte(tmp_path: Path, origin: Origin) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        start(request, Content_Length="10000")
        origin.drip(request, bytes(10_000))

    assert House(tmp_path, patience=0.2).failure(origin.script("/m.mar", trickle)) == "no progress for 0.2 s"


# The end of the server


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("body", [True, False])
def test_stop_cuts_what_hangs(house: House, origin: Origin, body: bool, length: bool) -> None:
    """A body without a length, cut after a complete archive, looks like a download that has ended well."""

    def hang(request: BaseHTTPRequestHandler) -> None:
        if body:
            start(request, 200, **{"Content_Length" if length else "Other": "100000"})
            request.wfile.write(mar())
        origin.hang()

    url = origin.script("/m.mar", hang)
    with ThreadPoolExecutor(1) as thread:
        failure = thread.submit(house.failure, url)
        assert origin.hung.wait(60)
        house.store.stop()
        assert failure.result(60) == "the server stops"
    assert house.failure(url) == "the server stops"
    assert len(origin.asked) == 1


# Others at the same place


def test_a_file_that_appears_during_the_download_is_not_replaced(house: House, origin: Origin) -> None:
    def late(request: BaseHTTPRequestHandler) -> None:
        (house.path / "m.mar").write_text("somebody else's")
        start(request, Content_Length=str(len(mar())))
        request.wfile.write(mar())

    with pytest.raises(InternalError, match=r"^Model file already exists m\.mar$"):
        house.store.open(origin.script("/m.mar", late))
    assert (house.path / "m.mar").read_text() == "somebody else's"
    assert house.stored() == ["m.mar"]


def test_a_failed_download_leaves_the_name_free(house: House, origin: Origin) -> None:
    url = origin.url("/m.mar")
    assert house.failure(url) == "HTTP 404 Not Found"
    origin.give("/m.mar", mar())
    house.store.open(url)
    assert house.stored() == ["m.mar"]


def test_a_store_that_cannot_be_written(tmp_path: Path, origin: Origin) -> None:
    house = House(tmp_path)
    url = origin.give(f"/{'x' * 300}.mar", mar())
    assert house.failure(url, Cause.STORAGE).startswith("File name too long: ")
    house.path.rmdir()
    with pytest.raises(DownloadFailed) as caught:
        house.store.open(origin.give("/m.mar", mar()))
    assert caught.value.certificate is not None
    assert caught.value.certificate.cause is Cause.STORAGE


# Files


def test_only_regular_files_are_copied(tmp_path: Path, house: House) -> None:
    os.mkfifo(tmp_path / "pipe.mar")
    (tmp_path / "folder.mar").mkdir()
    for path in ("/dev/zero", str(tmp_path / "pipe.mar"), str(tmp_path / "folder.mar")):
        assert house.failure(f"file://{path}") == f"not a regular file: {path}"
    assert house.failure(f"file://{tmp_path}/none.mar") == f"No such file or directory: {tmp_path}/none.mar"
    assert house.failure(f"file://elsewhere{tmp_path}/none.mar") == "a file on another machine: 'elsewhere'"


def test_files_are_limited_too(tmp_path: Path) -> None:
    house = House(tmp_path, size=1000)
    (tmp_path / "large.mar").write_bytes(bytes(1001))
    assert house.failure(f"file://{tmp_path}/large.mar") == TOO_LARGE


# A start of the server, with what an earlier one has downloaded


def test_an_earlier_download_is_opened_again(house: House, origin: Origin) -> None:
    url = origin.url("/m.mar")
    (house.path / "m.mar").write_bytes(mar())
    archive = house.store.open(url, reuse=True)
    assert (archive.url, archive.downloaded, archive.reused) == (url, house.path / "m.mar", True)
    assert origin.asked == []
    archive.discard()
    assert house.stored() == ["m.mar"]
    archive.remove_download()
    assert house.stored() == []


def test_another_archive_of_the_same_name_is_not_mistaken_for_it(house: House, origin: Origin) -> None:
    first, second = origin.give("/1/m.mar", mar()), origin.give("/2/m.mar", mar())
    assert not house.store.open(first, reuse=True).reused
    assert house.store.open(first, reuse=True).reused
    with pytest.raises(InternalError, match=r"^Model file already exists m\.mar$"):
        house.store.open(second, reuse=True)
    assert origin.asked == ["/1/m.mar"]


def test_an_earlier_download_that_is_useless_stays(house: House, origin: Origin) -> None:
    (house.path / "m.mar").write_bytes(b"no archive")
    with pytest.raises(Exception, match="it is not a zip archive"):
        house.store.open(origin.url("/m.mar"), reuse=True)
    assert house.stored() == ["m.mar"]
