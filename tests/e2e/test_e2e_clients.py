"""Clients as users have them, with tokens, over plain HTTP and over TLS: curl, ab, sessions of httpx and requests."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import requests

from harness.archives import pack
from harness.certificates import Certified
from harness.server import DEADLINE, ServerProcess
from harness.system import needs

FLAGS = ("--enable-model-api", "--ncs")  # authorization is on unless it is switched off
BODY = bytes(range(256)) * 100
POST = ("--data-binary", "@-", "--header", "Content-Type: image/png")

# Tells which parameters came, and how long each is.
MEASURE = """
def handle(data, context):
    return None if data is None else [{name: len(value) for name, value in row.items()} for row in data]
"""


@dataclass(frozen=True)
class Site:
    """A server with tokens and the model `measure`, and what clients have to know of it."""

    server: ServerProcess
    certificate: Path  # that they trust, where the server has one

    def url(self, path: str = "/predictions/measure", api: str = "Inference") -> str:
        return self.server.url(api) + path

    def token(self, kind: str = "inference") -> str:
        """The value of the header that opens an API."""
        keys = json.loads((self.server.directory / "key_file.json").read_text())
        return f"Bearer {keys[kind]['key']}"

    def curl(self, *arguments: str, token: bool = True, body: bytes = b"") -> tuple[str, str]:
        """What it printed, with the status at the end, and what it said about connections."""
        command = ["curl", "--silent", "--verbose", "--max-time", "30", "--cacert", str(self.certificate)]
        command += ["--header", f"Authorization: {self.token()}"] if token else []
        command += ["--write-out", " %{http_code}\n", *arguments]
        done = subprocess.run(command, input=body, capture_output=True, check=True)
        return done.stdout.decode(), done.stderr.decode("latin-1")


@pytest.fixture(scope="module", params=["http", "https"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    certificate = Certified.make(authority=True).write_pair(directory)
    addresses = {f"{api}_address": f"{request.param}://127.0.0.1:0" for api in ("inference", "management", "metrics")}
    server = ServerProcess(directory, flags=FLAGS, config=addresses | certificate)
    pack(server.store, "measure", MEASURE)
    with server:
        site = Site(server, directory / "cert.pem")
        parameters = {"url": "measure.mar", "initial_workers": "1"}
        answer = requests.post(
            site.url("/models", "Management"),
            params=parameters,
            headers={"Authorization": site.token("management")},
            verify=str(site.certificate),
            timeout=DEADLINE,
        )
        assert answer.status_code == 200, answer.text
        yield site


@pytest.fixture
def httpx_session(site: Site) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(site.certificate))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    headers = {"Authorization": site.token()}
    with httpx.Client(base_url=site.server.url(), headers=headers, verify=context, timeout=DEADLINE) as client:
        client.event_hooks["response"] = [note_httpx_port]
        yield client


def note_httpx_port(answer: httpx.Response) -> None:
    """While its connection is there."""
    answer.extensions["port"] = answer.extensions["network_stream"].get_extra_info("client_addr")[1]


@pytest.fixture
def requests_session(site: Site) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["Authorization"] = site.token()
        session.verify = str(site.certificate)
        session.trust_env = False  # no proxies, no .netrc
        session.hooks["response"] = [note_requests_port]
        yield session


def note_requests_port(answer: requests.Response, **_: object) -> None:
    """While its connection is there: one that will be closed has been let go already."""
    connection = answer.raw.connection
    answer.port = connection and connection.sock and connection.sock.getsockname()[1]  # type: ignore[attr-defined]


@needs("curl")
def test_curl_with_and_without_a_token(site: Site) -> None:
    assert site.curl(site.url("/ping"))[0] == '{\n  "status": "Healthy"\n}\n 200\n'
    output, _ = site.curl(site.url("/ping"), token=False)
    assert '"type": "InvalidKeyException"' in output
    assert output.endswith(" 400\n")


@needs("curl")
def test_curl_sends_bodies_in_every_way(site: Site, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(BODY)
    body = f"@{tmp_path / 'body'}"
    for arguments, row in (
        (["--upload-file", str(tmp_path / "body")], {"body": len(BODY)}),
        (["--data-binary", body, "--header", "Content-Type: image/png"], {"body": len(BODY)}),
        (["--form", f"data={body}", "--form", "more=text"], {"data": len(BODY), "more": 4}),
        (["--data", "data=four&x="], {"data": 4, "x": 0}),
        (["--data", "lonely"], {"lonely": 0}),
        (["--get"], {"body": 0}),
    ):
        output, _ = site.curl(*arguments, site.url())
        assert (json.loads(output.removesuffix(" 200\n"))) == row


@needs("curl")
def test_curl_sends_chunks(site: Site) -> None:
    output, said = site.curl("--upload-file", "-", site.url(), body=BODY)
    assert "> Transfer-Encoding: chunked" in said
    assert json.loads(output.removesuffix(" 200\n")) == {"body": len(BODY)}


@needs("curl")
def test_curl_waits_for_leave_to_send(site: Site) -> None:
    output, said = site.curl("--header", "Expect: 100-continue", *POST, site.url(), body=BODY)
    assert "< HTTP/1.1 100 Continue" in said
    assert output.endswith(" 200\n")


@needs("curl")
def test_curl_keeps_its_connection(site: Site) -> None:
    """But for the one whose answer was an error."""
    output, said = site.curl(site.url("/ping"), site.url("/ping"), site.url("/nothing"), site.url("/ping"))
    assert re.findall(r" (\d{3})\n", output) == ["200", "200", "404", "200"]
    assert len(re.findall(r"Re-using existing connection", said)) == 2
    assert len(re.findall(r"Connected to ", said)) == 2


@needs("curl")
def test_curl_speaks_http_1_0(site: Site) -> None:
    output, said = site.curl("--http1.0", *POST, site.url(), body=BODY)
    assert output.endswith(" 200\n")
    assert "< connection: close" in said.lower()


@needs("curl")
def test_curl_sees_the_headers_alone(site: Site) -> None:
    output, _ = site.curl("--head", site.url("/ping"))
    assert "content-length: 26\r\n" in output
    assert not output.rpartition("\r\n\r\n")[2].strip(" 20\n")


@needs("ab")
def test_ab_keeps_its_connections(site: Site, tmp_path: Path) -> None:
    """Bodies are posted as its users do it."""
    (tmp_path / "body").write_bytes(BODY)
    command = ["ab", "-k", "-n", "200", "-c", "10", "-p", str(tmp_path / "body"), "-T", "image/png"]
    command += ["-H", f"Authorization: {site.token()}", site.url()]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"Complete requests:\s+200\b", report), report
    assert re.search(r"Keep-Alive requests:\s+200\b", report), report
    assert re.search(r"Failed requests:\s+0\b", report), report
    assert "Non-2xx responses" not in report


def test_an_httpx_session(site: Site, httpx_session: httpx.Client) -> None:
    """All kinds of bodies go over one connection, until an answer is an error."""
    answers = [
        httpx_session.post("/predictions/measure", content=BODY),
        httpx_session.post("/predictions/measure", json={"a": [1]}),
        httpx_session.post("/predictions/measure", data={"x": "12"}),
        httpx_session.post("/predictions/measure", files={"f": ("name", BODY, "image/png")}, data={"x": "12"}),
        httpx_session.post("/predictions/measure", content=iter([BODY, BODY])),
        httpx_session.get("/predictions/measure"),
    ]
    assert [answer.json() for answer in answers] == [
        {"body": len(BODY)},
        {"body": 1},
        {"x": 2},
        {"x": 2, "f": len(BODY)},
        {"body": 2 * len(BODY)},
        {"body": 0},
    ]
    assert len({answer.extensions["port"] for answer in answers}) == 1
    missed = httpx_session.get("/predictions/nope")
    assert (missed.status_code, missed.extensions["port"]) == (404, answers[0].extensions["port"])
    assert httpx_session.get("/ping").extensions["port"] != missed.extensions["port"]


def test_a_requests_session(site: Site, requests_session: requests.Session) -> None:
    """All kinds of bodies go over one connection, until an answer is an error."""
    answers = [
        requests_session.post(site.url(), data=BODY, timeout=DEADLINE),
        requests_session.post(site.url(), json={"a": [1]}, timeout=DEADLINE),
        requests_session.post(site.url(), data={"x": "12"}, timeout=DEADLINE),
        requests_session.post(site.url(), files={"f": ("name", BODY)}, data={"x": "12"}, timeout=DEADLINE),
        requests_session.post(site.url(), data=iter([BODY, BODY]), timeout=DEADLINE),
        requests_session.put(site.url(), timeout=DEADLINE),
    ]
    assert [answer.json() for answer in answers] == [
        {"body": len(BODY)},
        {"body": 1},
        {"x": 2},
        {"x": 2, "f": len(BODY)},
        {"body": 2 * len(BODY)},
        {"body": 0},
    ]
    ports = {answer.port for answer in answers}  # type: ignore[attr-defined]
    assert len(ports) == 1
    assert requests_session.get(site.url("/nothing"), timeout=DEADLINE).status_code == 404
    again = requests_session.get(site.url("/ping"), timeout=DEADLINE)
    assert again.status_code == 200
    assert again.port not in {None, *ports}  # type: ignore[attr-defined]


def test_a_session_renews_its_token(site: Site, requests_session: requests.Session) -> None:
    """The old one is refused at once."""
    headers = {"Authorization": site.token("API")}
    renewal = requests_session.get(
        site.url("/token", "Management"), params={"type": "inference"}, headers=headers, timeout=DEADLINE
    )
    assert (renewal.status_code, renewal.content) == (200, b"\n")
    refused = requests_session.get(site.url("/ping"), timeout=DEADLINE)
    assert (refused.status_code, refused.json()["type"]) == (400, "InvalidKeyException")
    requests_session.headers["Authorization"] = site.token()
    assert requests_session.get(site.url("/ping"), timeout=DEADLINE).json() == {"status": "Healthy"}
