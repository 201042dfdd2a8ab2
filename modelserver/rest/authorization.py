"""Who may call what: the keys in force, the check before an endpoint, and `/token`, which renews a key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from modelserver.errors import InvalidKey
from modelserver.rest.call import Call
from modelserver.rest.key_file import KeyFile
from modelserver.rest.parameters import Query
from modelserver.rest.render import JSON_TYPE
from modelserver.rest.router import Endpoint, Route
from modelserver.rest.tokens import API, INFERENCE, MANAGEMENT, Keys, Kind, expiry

_REFUSED: Final = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
_NOT_RENEWED: Final = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"
_RENEWABLE: Final[dict[str | None, Kind]] = {MANAGEMENT: MANAGEMENT, INFERENCE: INFERENCE}
_ANNOUNCEMENT: Final = """
######
TorchServe now enforces token authorization by default.
This requires the correct token to be provided when calling an API.
Key file located at {path}
Send a key of it in the header "Authorization: Bearer <key>", or start with --disable-token-auth.
######"""


class Authorization:
    """The keys of a running server and their file, which always says what is in force."""

    def __init__(self, file: KeyFile, life: float, clock: Callable[[], int] = time.time_ns) -> None:
        """`life` of the management and the inference key in minutes; `clock` in nanoseconds since the epoch."""
        self._file = file
        self._life = life
        self._clock = clock
        self._keys = Keys.fresh(self._expiry())
        self._renewal = asyncio.Lock()

    @property
    def announcement(self) -> str:
        """What the log says at the start."""
        return _ANNOUNCEMENT.format(path=self._file.path)

    def publish(self) -> None:
        """Write the key file; blocks. Raises OSError."""
        self._file.write(self._keys.text())

    def withdraw(self) -> None:
        """Remove the key file; blocks."""
        self._file.remove()

    def require(self, header: bytes, kinds: Iterable[Kind]) -> None:
        """Raises InvalidKey unless an `Authorization` header shows a key of one of these kinds."""
        if not self._keys.admit(header, kinds, self._clock()):
            raise InvalidKey(_REFUSED)

    def guard(self, routes: Iterable[Route], *kinds: Kind) -> list[Route]:
        """The same routes, each behind the check."""
        return [route._replace(endpoint=self._guarded(route.endpoint, kinds)) for route in routes]

    async def renew(self, call: Call) -> None:
        """`/token`: replace a key by a new one; any method. The file has the answer."""
        kind = self._renewable(call)
        async with self._renewal:
            keys = self._keys.renewed(kind, self._expiry())
            await asyncio.to_thread(self._file.write, keys.text())
            self._keys = keys  # last: where the file cannot be written, nobody would know the new key
        call.respond(200, b"\n", [JSON_TYPE])

    def _guarded(self, endpoint: Endpoint, kinds: tuple[Kind, ...]) -> Endpoint:
        def checked(call: Call) -> Coroutine[Any, Any, None] | None:
            self.require(_shown(call), kinds)
            return endpoint(call)

        return checked

    def _renewable(self, call: Call) -> Kind:
        if not self._keys.admit(_shown(call), (API,), self._clock()):
            raise InvalidKey(_NOT_RENEWED)
        kind = _RENEWABLE.get(Query(call.query).text("type"))
        if kind is None:
            raise InvalidKey(_NOT_RENEWED)
        return kind

    def _expiry(self) -> int:
        return expiry(self._clock(), self._life)


def _shown(call: Call) -> bytes:
    """The first `Authorization` header, or b""; the first counts here, where elsewhere the last one does."""
    for name, value in call.exchange.headers:
        if name == b"authorization":
            return value.rstrip(b" \t")  # the parser leaves blanks behind a value
    return b""
