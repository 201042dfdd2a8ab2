"""Token authorization of a real server: from the key file to the answer."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from typing import Any

import httpx

from harness.archives import NOOP, pack
from harness.server import ServerProcess, eventually

FLAGS = ("--enable-model-api", "--ncs")  # authorization is on unless it is switched off


def keys_of(server: ServerProcess) -> Any:
    return json.loads((server.directory / "key_file.json").read_bytes())


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def is_refused(answer: httpx.Response) -> bool:
    return answer.status_code == 400 and answer.json()["type"] == "InvalidKeyException"


def test_every_port_asks_for_its_key_until_the_end(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, flags=FLAGS) as server:
        pack(server.store, "m", NOOP)
        path = tmp_path / "key_file.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert f"Key file located at {path}" in server.lines
        assert "org.pytorch.serve.util.TokenAuthorization - " in server.output
        keys = keys_of(server)
        assert list(keys) == ["management", "inference", "API"]
        inference, management, api = (bearer(keys[kind]["key"]) for kind in ("inference", "management", "API"))

        for refused in ({}, bearer("wrong"), inference, api):
            assert is_refused(server.request("GET", "/models", "Management", headers=refused))
        for refused in ({}, bearer("wrong"), management, api):
            assert is_refused(server.request("GET", "/ping", headers=refused))
            assert is_refused(server.request("GET", "/unknown", headers=refused))
        assert server.request("GET", "/unknown", headers=inference).status_code == 404
        assert server.request("GET", "/metrics", "Metrics").status_code == 200

        query = {"url": "m.mar", "initial_workers": "1", "synchronous": "true"}
        assert is_refused(server.request("POST", "/models", "Management", params=query, headers=inference))
        registered = server.request("POST", "/models", "Management", params=query, headers=management)
        assert registered.status_code == 200, registered.text
        assert is_refused(server.predict("m", b"x"))
        assert server.predict("m", b"x", headers=inference).text == "ok"

        renewed = server.request("GET", "/token?type=inference", "Management", headers=api)
        assert (renewed.status_code, renewed.content) == (200, b"\n")
        assert renewed.headers["content-type"] == "application/json"
        after = keys_of(server)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert {kind for kind in keys if keys[kind] != after[kind]} == {"inference"}
        assert is_refused(server.predict("m", b"x", headers=inference))
        assert server.predict("m", b"x", headers=bearer(after["inference"]["key"])).text == "ok"
        assert server.request("GET", "/models", "Management", headers=management).status_code == 200

        assert server.stop() == 0
        assert not list(tmp_path.glob("*key_file*"))


def test_keys_expire_and_the_api_key_does_not(tmp_path: Path) -> None:
    config = {"token_expiration_min": 0.02, "ping_without_token": "true"}
    with ServerProcess(tmp_path, flags=FLAGS, config=config) as server:
        keys = keys_of(server)

        def status(kind: str, path: str, api: str) -> int:
            return server.request("GET", path, api, headers=bearer(keys_of(server)[kind]["key"])).status_code

        eventually(lambda: status("inference", "/unknown", "Inference") == 400)
        eventually(lambda: status("management", "/models", "Management") == 400)
        assert server.request("GET", "/ping").status_code == 200

        def renewed_in_time() -> bool:
            """On a slow machine a key may be too old before it is shown."""
            assert status("API", "/token?type=management", "Management") == 200
            return status("management", "/models", "Management") == 200

        eventually(renewed_in_time)
        assert keys_of(server)["management"] != keys["management"]
        eventually(lambda: status("management", "/models", "Management") == 400)


def test_the_file_of_a_later_server_survives_the_end_of_an_earlier_one(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, flags=FLAGS) as server:
        (tmp_path / "key_file.json").unlink()
        (tmp_path / "key_file.json").write_text("of the next server")
        assert server.stop() == 0
    assert (tmp_path / "key_file.json").read_text() == "of the next server"


def test_a_server_whose_keys_nobody_could_learn_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "key_file.json").mkdir()
    server = ServerProcess(tmp_path, flags=FLAGS)
    server.start(wait=False)
    assert server.wait() == 1
    assert f"Failed to write key file: {tmp_path / 'key_file.json'}: Is a directory" in server.lines
    assert not server.started


def test_a_server_that_finds_its_port_taken_leaves_the_keys_of_the_other_alone(tmp_path: Path) -> None:
    (tmp_path / "key_file.json").write_text("of the other server")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        server = ServerProcess(tmp_path, flags=FLAGS, config={"management_address": address})
        server.start(wait=False)
        assert server.wait() == 1
    assert "Failed to bind to address" in server.output
    assert (tmp_path / "key_file.json").read_text() == "of the other server"


def test_without_authorization_there_is_no_key_file(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        assert server.request("GET", "/ping", headers=bearer("of-the-gateway")).status_code == 200
        assert server.request("GET", "/token?type=inference", "Management").status_code == 404
        assert not (tmp_path / "key_file.json").exists()
