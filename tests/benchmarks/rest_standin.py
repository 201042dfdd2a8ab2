"""A server with just enough of TorchServe's command line and REST interface to be measured. Its workers only sleep."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

MAX_BODY = 1000
WORKER = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


class State:
    """Workers by model; a dead one is replaced after one request has failed for it."""

    def __init__(self, store: Path, key: str | None) -> None:
        self.store = store
        self.key = key  # value of the header that opens everything; None: all is open
        self.workers: dict[str, list[subprocess.Popen[bytes]]] = {}
        self.lock = threading.Lock()

    def scale(self, model: str, count: int) -> None:
        workers = self.workers.setdefault(model, [])
        for surplus in workers[count:]:
            surplus.kill()
            surplus.wait()
        del workers[count:]
        workers += [subprocess.Popen(WORKER) for _ in range(count - len(workers))]

    def replace_dead(self, model: str) -> bool:
        """Whether there were any."""
        workers = self.workers[model]
        alive = [worker for worker in workers if worker.poll() is None]
        if len(alive) == len(workers):
            return False
        self.workers[model] = alive
        self.scale(model, len(workers))
        return True


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    state: State
    protocol_version = "HTTP/1.1"

    def respond(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)  # all of it: who still sends when the connection ends does not see the answer
        if length > MAX_BODY:
            status, body = 413, b"too large"
        else:
            with self.state.lock:
                status, body = self.route() if self.is_admitted() else (400, b"no key")
        self.send_response(status)
        if self.close_connection or status in (400, 404, 413):
            self.send_header("Connection", "close")  # closes it, too
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = respond

    def is_admitted(self) -> bool:
        """Whoever shows a key, or only wants to know whether the server is there."""
        return self.state.key in (None, self.headers.get("Authorization")) or self.path == "/ping"

    def route(self) -> tuple[int, bytes]:
        target = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        match self.command, target.path.strip("/").split("/"):
            case "GET", ["ping"]:
                return 200, b"{}"
            case "POST", ["models"] if query["synchronous"] == "true" and (self.state.store / query["url"]).exists():
                self.state.scale(query["model_name"], int(query["initial_workers"]))
                return 200, b"{}"
            case "PUT", ["models", model] if (
                query["synchronous"] == "true" and query["min_worker"] == query["max_worker"]
            ):
                self.state.scale(model, int(query["min_worker"]))
                return 200, b"{}"
            case "GET", ["models", model] if model in self.state.workers:
                workers = [
                    {"id": str(9000 + index), "pid": worker.pid, "status": "READY"}
                    for index, worker in enumerate(self.state.workers[model])
                ]
                return 200, json.dumps([{"modelName": model, "workers": workers}]).encode()
            case "POST", ["predictions", model] if model in self.state.workers:
                return (503, b"{}") if self.state.replace_dead(model) else (200, b"ok")
            case "POST", ["v2", "models", model, "infer"] if model in self.state.workers:
                return 200, b"{}"
        return 404, b"no such route"

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--start", "--foreground", "--ncs", "--enable-model-api"):
        parser.add_argument(flag, action="store_true", required=True)
    parser.add_argument("--disable-token-auth", action="store_true")
    parser.add_argument("--model-store", type=Path, required=True)
    parser.add_argument("--ts-config", type=Path, required=True)
    options = parser.parse_args()
    settings = dict(line.split("=", 1) for line in options.ts_config.read_text().splitlines())
    Handler.state = State(options.model_store, None if options.disable_token_auth else "Bearer open")
    keys = {api: {"key": "open"} for api in ("inference", "management")}
    Path("key_file.json").write_text(json.dumps(keys))
    addresses = [urlsplit(settings[f"{api}_address"]) for api in ("inference", "management")]
    servers = [Server(("127.0.0.1", address.port or 0), Handler) for address in addresses]  # both listen, then ...
    for server in servers:
        threading.Thread(target=server.serve_forever).start()  # ... one answers


if __name__ == "__main__":
    main()
