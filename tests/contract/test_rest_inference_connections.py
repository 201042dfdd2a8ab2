"""How connections go on, and how they end."""

from __future__ import annotations

import socket
from http.client import HTTPResponse

import httpx
import pytest

from contract.server import PATIENCE, ContractServer

fixed = pytest.mark.fixed


def connect(server: ContractServer) -> socket.socket:
    url = httpx.URL(server.url())
    return socket.create_connection((url.host, url.port), PATIENCE)


def read(connection: socket.socket) -> HTTPResponse:
    """One whole answer and no byte more; the body is read."""
    response = HTTPResponse(connection)
    response.fp = connection.makefile("rb", buffering=1)
    response.begin()
    response.read()
    return response


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def test_a_connection_serves_many_requests(server: ContractServer) -> None:
    """One after the other."""
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(get("/ping"))
            assert read(connection).status == 200


@fixed("pipelining")
def test_every_pipelined_answer_has_an_id(server: ContractServer) -> None:
    """In the order of the requests."""
    with connect(server) as connection:
        connection.sendall(get("/ping") + get("/ping/again"))
        answers = [read(connection) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
        assert len({answer.getheader("x-request-id") for answer in answers} - {None}) == 2


@fixed("line ends")
def test_lines_end_with_cr_and_lf(server: ContractServer) -> None:
    for head in (b"GET /ping HTTP/1.1\nHost: h\n\n", b"GET /ping HTTP/1.1\r\nHost: h\r\n\n"):
        with connect(server) as connection:
            connection.sendall(head)
            assert read(connection).status == 400


@fixed("orderly close")
def test_an_error_ends_its_connection_in_order(server: ContractServer) -> None:
    """After the body comes the end of the stream, not a reset."""
    with connect(server) as connection:
        connection.sendall(get("/nothing"))
        assert read(connection).status == 404
        assert connection.recv(1) == b""


def test_leave_is_given_to_send_a_body(server: ContractServer) -> None:
    """To a client that asks for it."""
    with connect(server) as connection:
        head = "POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(b"{}")
        assert read(connection).status == 200
