"""Token authorization: the keys, their file, and which route asks for which key."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rest_doubles import Connection, MemoryEngine, Response, Service, read_responses

from modelserver.rest.apps import api_app, connectors
from modelserver.rest.authorization import Authorization
from modelserver.rest.exchange import App
from modelserver.rest.key_file import KeyFile
from modelserver.rest.tokens import API, INFERENCE, LAST_INSTANT, MANAGEMENT, Key, Keys, expiry, instant, shown_secret
from modelserver.settings.addresses import Address
from modelserver.settings.table import Settings

NOON = 1795176000_000000007  # nanoseconds
MINUTE = 60 * 10**9
MESSAGE = "Token {} failed. Token either incorrect, expired, or not provided correctly"
REFUSED = {"code": 400, "type": "InvalidKeyException", "message": MESSAGE.format("Authorization")}
NOT_RENEWED = {**REFUSED, "message": MESSAGE.format("Authentication")}
INFERENCE_API, MANAGEMENT_API, METRICS_API = "Inference", "Management", "Metrics"


class VirtualClock:
    """Wall-clock time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now


@dataclass
class Guarded(Service):
    """The apps of one server behind one authorization; each request comes over a connection of its own."""

    engine: MemoryEngine = field(default_factory=lambda: MemoryEngine("m"))
    path: Path = field(kw_only=True)
    life: float = 60.0
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.authorization = Authorization(KeyFile(self.path), self.life, self.clock)
        self.authorization.publish()

    @property
    def app(self) -> App:
        return api_app(self.apis, self.engine, self.telemetry, self.settings, self.authorization)

    def written(self) -> Any:
        """What the key file holds."""
        return json.loads(self.path.read_bytes())

    def key(self, kind: str) -> str:
        """The secret of one kind, from the key file."""
        secret: str = self.written()[kind]["key"]
        return secret

    def ask(self, target: str, kind: str = "", *, api: str = "", method: str = "GET", header: str = "") -> Response:
        """A request with a key from the file, or with these header lines; `api`: the port that serves only this."""
        here = self.apis
        self.apis = (api,) if api else here
        lines = [f"{method} {target} HTTP/1.1", f"Authorization: Bearer {self.key(kind)}" if kind else header or "A: b"]
        data = "\r\n".join([*lines, "", ""]).encode()

        async def exchange() -> bytes:
            connection = self.connect()
            await connection.feed(data)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
            return connection.written

        try:
            (response,) = read_responses(asyncio.run(exchange()), head=method == "HEAD")
        finally:
            self.apis = here
        return response


@pytest.fixture
def server(tmp_path: Path) -> Guarded:
    return Guarded(path=tmp_path / "key_file.json")


def is_refused(response: Response) -> bool:
    """Errors of the Open Inference routes have one member more."""
    body = {name: value for name, value in response.json.items() if name != "error"}
    return (response.status, body) == (400, REFUSED)


class TestKeys:
    def test_text_of_the_file(self) -> None:
        keys = Keys(
            {MANAGEMENT: Key(b"VgV6zWkI", NOON), INFERENCE: Key(b"Aac-of_I", NOON + 993), API: Key(b"5r6BiCxS")}
        )
        assert keys.text() == (
            "{\n"
            '  "management": {\n'
            '    "key": "VgV6zWkI",\n'
            '    "expiration time": "2026-11-20T12:00:00.000000007Z"\n'
            "  },\n"
            '  "inference": {\n'
            '    "key": "Aac-of_I",\n'
            '    "expiration time": "2026-11-20T12:00:00.000001000Z"\n'
            "  },\n"
            '  "API": {\n'
            '    "key": "5r6BiCxS"\n'
            "  }\n"
            "}"
        )

    def test_fresh_keys_differ_and_are_url_safe(self) -> None:
        secrets = {key.secret for _ in range(100) for key in Keys.fresh(NOON).keys.values()}
        assert len(secrets) == 300
        assert all(re.fullmatch(rb"[A-Za-z0-9_-]{8}", secret) for secret in secrets)

    def test_the_api_key_never_expires(self) -> None:
        keys = Keys.fresh(NOON).keys
        assert [key.expires for key in keys.values()] == [NOON, NOON, None]
        assert keys[API].opens(keys[API].secret, LAST_INSTANT + 1)

    def test_a_key_expires_on_its_instant(self) -> None:
        key = Key(b"VgV6zWkI", NOON)
        assert key.opens(b"VgV6zWkI", NOON - 1)
        assert not key.opens(b"VgV6zWkI", NOON)

    def test_renewal_changes_one_key(self) -> None:
        before = Keys.fresh(NOON)
        after = before.renewed(MANAGEMENT, NOON + 5)
        assert after.keys[MANAGEMENT].secret != before.keys[MANAGEMENT].secret
        assert after.keys[MANAGEMENT].expires == NOON + 5
        assert {kind: after.keys[kind] for kind in (INFERENCE, API)} == {
            kind: before.keys[kind] for kind in (INFERENCE, API)
        }
        assert list(after.keys) == [MANAGEMENT, INFERENCE, API]

    @pytest.mark.parametrize(
        ("minutes", "instant_"),
        [(60.0, NOON + 60 * MINUTE), (0.25, NOON + MINUTE // 4), (0.0, NOON), (1e300, LAST_INSTANT)],
    )
    def test_life(self, minutes: float, instant_: int) -> None:
        assert expiry(NOON, minutes) == instant_

    def test_the_last_instant_can_be_written(self) -> None:
        assert instant(LAST_INSTANT) == "9999-12-31T23:59:59.999999999Z"

    @pytest.mark.parametrize(
        ("header", "secret"),
        [
            (b"Bearer k", b"k"),
            (b"Bearer  \t k", b"k"),
            (b"Bearer k k", None),
            (b"bearer k", None),
            (b"BEARER k", None),
            (b"Basic k", None),
            (b"Bearerk", None),
            (b"Bearer ", None),
            (b"Bearer", None),
            (b"k", None),
            (b"", None),
            (b"x Bearer k", None),
            (b"Bearer \xff", b"\xff"),
        ],
    )
    def test_header(self, header: bytes, secret: bytes | None) -> None:
        assert shown_secret(header) == secret


class TestKeyFile:
    def test_only_its_owner_may_read_it(self, tmp_path: Path) -> None:
        path = tmp_path / "key_file.json"
        path.write_text("of an earlier server")
        path.chmod(0o666)
        umask = os.umask(0)
        try:
            KeyFile(path).write("text")
        finally:
            os.umask(umask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text() == "text"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        path, target = tmp_path / "key_file.json", tmp_path / "precious"
        target.write_text("data")
        path.symlink_to(target)
        KeyFile(path).write("text")
        assert target.read_text() == "data"
        assert not path.is_symlink()

    def test_a_reader_of_the_old_file_sees_all_of_it(self, tmp_path: Path) -> None:
        file = KeyFile(tmp_path / "key_file.json")
        file.write("old")
        with file.path.open() as reader:
            file.write("new")
            assert reader.read() == "old"
        assert file.path.read_text() == "new"

    @pytest.mark.parametrize("place", ["taken", "missing/key_file.json"])
    def test_a_file_that_cannot_be_written(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "taken").mkdir()
        path = tmp_path / place
        file = KeyFile(path)
        with pytest.raises(OSError, match=f"Failed to write key file: {re.escape(str(path))}: .+") as raised:
            file.write("text")
        assert str(path) in (raised.value.strerror or "")
        file.remove()
        assert [found.name for found in tmp_path.iterdir()] == ["taken"]

    def test_removal(self, tmp_path: Path) -> None:
        file = KeyFile(tmp_path / "key_file.json")
        file.write("text")
        file.write("renewed")
        file.remove()
        assert not list(tmp_path.iterdir())
        file.remove()

    @pytest.mark.parametrize("other", ["of the next server", "text and more", ""])
    def test_a_file_of_somebody_else_stays(self, tmp_path: Path, other: str) -> None:
        file = KeyFile(tmp_path / "key_file.json")
        file.write("text")
        file.path.write_text(other)
        file.remove()
        assert file.path.read_text() == other

    def test_a_file_that_was_never_written_stays(self, tmp_path: Path) -> None:
        (tmp_path / "key_file.json").write_text("of another server")
        KeyFile(tmp_path / "key_file.json").remove()
        assert (tmp_path / "key_file.json").exists()

    def test_a_link_or_a_pipe_in_its_place_stays(self, tmp_path: Path) -> None:
        file = KeyFile(tmp_path / "key_file.json")
        file.write("text")
        copy = file.path.rename(tmp_path / "copy")
        file.path.symlink_to(copy)
        file.remove()
        assert file.path.is_symlink()
        file.path.unlink()
        os.mkfifo(file.path)
        file.remove()
        assert file.path.exists()


class TestCheck:
    # The key that opens each route; "" for those that are open. Answers of the endpoints are not the matter here.
    PORTS = (
        (INFERENCE_API, "/ping", "inference", 200),
        (INFERENCE_API, "/predictions/m", "inference", 200),
        (INFERENCE_API, "/explanations/m", "inference", 200),
        (INFERENCE_API, "/explanations", "inference", 404),
        (INFERENCE_API, "/invocations?model_name=m", "inference", 200),
        (INFERENCE_API, "/models/m/invoke", "inference", 200),
        (INFERENCE_API, "/m/predict", "inference", 200),
        (INFERENCE_API, "/v1/models", "inference", 200),
        (INFERENCE_API, "/v1/models/m:predict", "inference", 200),
        (INFERENCE_API, "/v2/models/m/infer", "inference", 200),
        (INFERENCE_API, "/api-description", "", 200),
        (INFERENCE_API, "/models", "inference", 404),
        (INFERENCE_API, "/token?type=inference", "inference", 404),
        (INFERENCE_API, "/nothing", "inference", 404),
        (INFERENCE_API, "/", "", 405),
        (MANAGEMENT_API, "/models", "management", 200),
        (MANAGEMENT_API, "/models/x", "management", 404),
        (MANAGEMENT_API, "/models/x/1.0/set-default", "management", 405),
        (MANAGEMENT_API, "/v1/models", "management", 200),
        (MANAGEMENT_API, "/api-description", "", 200),
        (MANAGEMENT_API, "/ping", "management", 404),
        (MANAGEMENT_API, "/tokens", "management", 404),
        (MANAGEMENT_API, "/token/x", "management", 404),
        (MANAGEMENT_API, "/nothing", "management", 404),
        (MANAGEMENT_API, "/", "", 405),
        (METRICS_API, "/metrics", "", 200),
        (METRICS_API, "/nothing", "", 404),
    )

    @pytest.mark.parametrize(("api", "target", "kind", "status"), PORTS)
    def test_a_port_takes_its_own_key_and_no_other(
        self, server: Guarded, api: str, target: str, kind: str, status: int
    ) -> None:
        for shown in ("", "inference", "management", "API"):
            response = server.ask(target, shown, api=api)
            if kind in ("", shown):
                assert response.status == status
                assert response.status < 400 or response.json["type"] != "InvalidKeyException"
            else:
                assert is_refused(response)

    @pytest.mark.parametrize(
        ("target", "kinds", "status"),
        [
            ("/ping", {"inference"}, 200),
            ("/predictions/m", {"inference"}, 200),
            ("/models", {"management"}, 200),
            ("/models/x", {"management"}, 404),
            ("/models/m/invoke", {"inference"}, 200),
            ("/m/predict", {"inference"}, 200),
            ("/v1/models", {"inference"}, 200),
            ("/models/a/b/c", {"inference", "management"}, 404),
            ("/metrics", {"inference", "management"}, 200),
            ("/nothing", {"inference", "management"}, 404),
        ],
    )
    def test_each_route_of_a_shared_port_takes_its_own_key(
        self, server: Guarded, target: str, kinds: set[str], status: int
    ) -> None:
        server.apis = (INFERENCE_API, MANAGEMENT_API)
        for shown in ("", "inference", "management", "API"):
            response = server.ask(target, shown)
            assert is_refused(response) if shown not in kinds else response.status == status

    def test_metrics_take_the_key_of_the_port_they_join(self, server: Guarded) -> None:
        server.apis = (MANAGEMENT_API, METRICS_API)
        assert server.ask("/metrics", "management").status == 200
        assert is_refused(server.ask("/metrics", "inference"))
        assert is_refused(server.ask("/metrics"))

    def test_descriptions_are_open(self, server: Guarded) -> None:
        for api in (INFERENCE_API, MANAGEMENT_API, METRICS_API):
            assert server.ask("/", method="OPTIONS", api=api).status == 200

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_every_method_is_checked(self, server: Guarded, method: str) -> None:
        assert is_refused(server.ask("/predictions/m", method=method))
        assert is_refused(server.ask("/models", method=method, api=MANAGEMENT_API))
        assert not server.engine.jobs

    def test_a_valid_key_does_not_open_the_model_api(self, server: Guarded) -> None:
        server.settings = Settings(enable_model_api=False)
        response = server.ask("/models?url=m.mar", "management", method="POST", api=MANAGEMENT_API)
        assert (response.status, response.json["type"]) == (405, "MethodNotAllowedException")

    @pytest.mark.parametrize(
        "line",
        [
            "AUTHORIZATION: Bearer {key}",
            "authorization:   Bearer   {key}  ",
            "Authorization: Bearer {key}\r\nAuthorization: Bearer wrong",  # the first one counts
        ],
    )
    def test_ways_to_show_a_key(self, server: Guarded, line: str) -> None:
        assert server.ask("/ping", header=line.format(key=server.key("inference"))).status == 200

    @pytest.mark.parametrize(
        "line",
        [
            "Authorization: {key}",
            "Authorization: bearer {key}",
            "Authorization: Bearer {key}x",
            "Authorization: Bearer {key} x",
            "Authorization: Bearer",
            "Authorization: Bearer wrong\r\nAuthorization: Bearer {key}",
            "Authorization: Bearer k\xe9y",
            "X-Authorization: Bearer {key}",
        ],
    )
    def test_ways_not_to_show_a_key(self, server: Guarded, line: str) -> None:
        response = server.ask("/ping", header=line.format(key=server.key("inference")))
        assert is_refused(response)
        assert response.headers["content-type"] == "application/json"
        assert response.headers["connection"] == "close"
        assert "x-request-id" in response.headers

    def test_a_refusal_is_recorded_without_a_model(self, server: Guarded) -> None:
        server.ask("/predictions/m")
        (record,) = server.telemetry.records
        assert (record.status, record.model, record.target) == (400, "", "/predictions/m")
        assert not server.telemetry.lines

    def test_keys_expire(self, server: Guarded) -> None:
        server.clock.now += 60 * MINUTE - 1
        assert server.ask("/ping", "inference").status == 200
        assert server.ask("/models", "management", api=MANAGEMENT_API).status == 200
        server.clock.now += 1
        assert is_refused(server.ask("/ping", "inference"))
        assert is_refused(server.ask("/models", "management", api=MANAGEMENT_API))
        assert server.ask("/token?type=inference", "API", api=MANAGEMENT_API).status == 200
        assert server.ask("/ping", "inference").status == 200

    def test_ping_without_token(self, server: Guarded) -> None:
        server.settings = Settings(ping_without_token=True)
        assert server.ask("/ping").status == 200
        assert server.ask("/ping", header="Authorization: Bearer wrong").status == 200
        assert is_refused(server.ask("/predictions/m"))
        assert is_refused(server.ask("/ping", api=MANAGEMENT_API))

    def test_connectors_are_guarded(self, server: Guarded) -> None:
        address = Address("http", "127.0.0.1", 8080)
        settings = Settings(inference_address=address, management_address=address)
        made = connectors(server.engine, server.telemetry, settings, server.authorization)
        assert [connector.name for connector in made] == [INFERENCE_API, METRICS_API]
        with_key = f"GET /models HTTP/1.1\r\nAuthorization: Bearer {server.key('management')}\r\n\r\n".encode()

        async def exchange() -> bytes:
            return await Connection(made[0].app).feed(with_key, b"GET /models HTTP/1.1\r\n\r\n")

        accepted, refused = read_responses(asyncio.run(exchange()))
        assert accepted.status == 200
        assert is_refused(refused)

    def test_without_authorization_a_foreign_header_is_ignored_and_there_is_no_token_route(self) -> None:
        here = Service(MemoryEngine("m"), apis=(INFERENCE_API, MANAGEMENT_API))
        assert here.request("GET", "/predictions/m", b"", "Authorization: Bearer of-the-gateway").body == b"ok"
        assert here.request("GET", "/token?type=inference").status == 404


class TestRenewal:
    @pytest.mark.parametrize(("kind", "other"), [("inference", "management"), ("management", "inference")])
    def test_one_key_is_replaced(self, server: Guarded, kind: str, other: str) -> None:
        server.apis = (INFERENCE_API, MANAGEMENT_API)
        target = {"inference": "/ping", "management": "/models"}
        before = server.written()
        server.clock.now += 5 * MINUTE
        response = server.ask(f"/token?type={kind}", "API")
        assert (response.status, response.body) == (200, b"\n")
        assert response.headers["content-type"] == "application/json"
        assert response.headers["content-length"] == "1"

        after = server.written()
        assert after[kind]["key"] != before[kind]["key"]
        assert after[kind]["expiration time"] == "2026-11-20T13:05:00.000000007Z"
        assert {name: after[name] for name in (other, "API")} == {name: before[name] for name in (other, "API")}
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
        assert is_refused(server.ask(target[kind], header=f"Authorization: Bearer {before[kind]['key']}"))
        assert server.ask(target[kind], kind).status == 200
        assert server.ask(target[other], other).status == 200

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
    def test_any_method(self, server: Guarded, method: str) -> None:
        before = server.key("inference")
        response = server.ask("/token/?type=inference&type=foo", "API", api=MANAGEMENT_API, method=method)
        assert (response.status, response.headers["content-length"]) == (200, "1")
        assert server.key("inference") != before

    @pytest.mark.parametrize(
        ("target", "kind"),
        [
            ("/token?type=inference", ""),
            ("/token?type=inference", "inference"),
            ("/token?type=management", "management"),
            ("/token", "API"),
            ("/token?type=", "API"),
            ("/token?type=Inference", "API"),
            ("/token?type=API", "API"),
            ("/token?type=foo&type=inference", "API"),
            ("/token?kind=inference", "API"),
        ],
    )
    def test_refusals(self, server: Guarded, target: str, kind: str) -> None:
        before = server.path.read_bytes()
        response = server.ask(target, kind, api=MANAGEMENT_API)
        assert (response.status, response.json) == (400, NOT_RENEWED)
        assert server.path.read_bytes() == before

    def test_a_token_in_another_header_or_in_the_query_is_no_token_request(self, server: Guarded) -> None:
        line = f"Authorization: Bearer {server.key('management')}\r\nReferer: http://h/token?type=inference"
        assert server.ask("/models?next=/token", header=line, api=MANAGEMENT_API).status == 200

    def test_a_key_stays_valid_while_its_successor_cannot_be_written(self, server: Guarded) -> None:
        inference, api = server.key("inference"), server.key("API")
        server.path.unlink()
        server.path.mkdir()
        response = server.ask("/token?type=inference", header=f"Authorization: Bearer {api}", api=MANAGEMENT_API)
        assert (response.status, response.json["type"]) == (500, "InternalServerException")
        assert "Failed to write key file" in server.telemetry.lines[0]
        assert server.ask("/ping", header=f"Authorization: Bearer {inference}").status == 200

    def test_renewals_at_the_same_time_both_count(self, server: Guarded) -> None:
        before = server.written()
        head = f"HTTP/1.1\r\nAuthorization: Bearer {before['API']['key']}\r\n\r\n"
        server.apis = (MANAGEMENT_API,)

        async def renew_both() -> None:
            connections = [server.connect(), server.connect()]
            for connection, kind in zip(connections, ("inference", "management"), strict=True):
                connection.protocol.data_received(f"GET /token?type={kind} {head}".encode())
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
            assert [read_responses(connection.written)[0].status for connection in connections] == [200, 200]

        asyncio.run(renew_both())
        after = server.written()
        assert all(after[kind]["key"] != before[kind]["key"] for kind in ("inference", "management"))
        assert server.ask("/models", "management").status == 200
        assert server.ask("/ping", "inference", api=INFERENCE_API).status == 200

    def test_the_loop_goes_on_while_the_file_is_written(self, tmp_path: Path) -> None:
        class SlowFile(KeyFile):
            """A disk that takes its time."""

            allowed = threading.Event()

            def write(self, text: str) -> None:
                assert self.allowed.wait(60)
                super().write(text)

        SlowFile.allowed.set()
        server = Guarded(path=tmp_path / "key_file.json", apis=(INFERENCE_API, MANAGEMENT_API))
        server.authorization = Authorization(SlowFile(server.path), 60, server.clock)
        server.authorization.publish()
        ping = f"GET /ping HTTP/1.1\r\nAuthorization: Bearer {server.key('inference')}\r\n\r\n".encode()
        renew = f"GET /token?type=inference HTTP/1.1\r\nAuthorization: Bearer {server.key('API')}\r\n\r\n".encode()

        async def exchange() -> None:
            SlowFile.allowed.clear()
            renewing, pinging = server.connect(), server.connect()
            assert await renewing.feed(renew) == b""
            written = await pinging.feed(ping)
            assert read_responses(written)[0].status == 200  # the old key, until its successor is in the file
            SlowFile.allowed.set()
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
            assert read_responses(renewing.written)[0].body == b"\n"
            assert is_refused(read_responses((await pinging.feed(ping))[len(written) :])[0])

        asyncio.run(exchange())


def test_announcement(server: Guarded) -> None:
    lines = server.authorization.announcement.split("\n")
    assert lines[:5] == [
        "",
        "######",
        "TorchServe now enforces token authorization by default.",
        "This requires the correct token to be provided when calling an API.",
        f"Key file located at {server.path}",
    ]
    assert lines[-1] == "######"
    assert not any(server.key(kind) in server.authorization.announcement for kind in server.written())
