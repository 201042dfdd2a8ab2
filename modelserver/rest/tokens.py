"""The keys that clients show: which exist, what a request must say, when they expire, how their file reads.

Values only: no file, no clock. Instants are nanoseconds since the epoch, as the text of the key file has them.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["management", "inference", "API"]
MANAGEMENT: Final = "management"
INFERENCE: Final = "inference"
API: Final = "API"  # opens `/token` and nothing else

LAST_INSTANT: Final = 253402300799_999999999  # the end of the year 9999, which every reader of dates understands
_MINUTE: Final = 60e9
_SECRET_SIZE: Final = 6  # random bytes
_BEARER = re.compile(rb"Bearer\s+(\S+)")


def instant(nanoseconds: int) -> str:
    """UTC in ISO-8601 with nine fractional digits."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


def expiry(now: int, minutes: float) -> int:
    """The instant that many minutes from now, or the last one there is."""
    return now + int(min(minutes * _MINUTE, LAST_INSTANT - now))


def shown_secret(header: bytes) -> bytes | None:
    """The secret in the value of an `Authorization` header; None if it does not read `Bearer <secret>`."""
    shown = _BEARER.fullmatch(header)
    return None if shown is None else shown.group(1)


@dataclass(frozen=True, slots=True)
class Key:
    """A secret of eight URL-safe characters and the instant from which it counts no more (None: never)."""

    secret: bytes
    expires: int | None = None

    @classmethod
    def fresh(cls, expires: int | None = None) -> Key:
        """A key that nobody can guess."""
        return cls(base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_SIZE)), expires)

    def opens(self, secret: bytes, now: int) -> bool:
        """Whether this is the secret and still counts; takes as long for a nearly right one as for any other."""
        return hmac.compare_digest(self.secret, secret) and (self.expires is None or now < self.expires)

    def members(self) -> dict[str, str]:
        """As the key file has it."""
        members = {"key": self.secret.decode("ascii")}
        if self.expires is not None:
            members["expiration time"] = instant(self.expires)
        return members


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one server."""

    keys: dict[Kind, Key]

    @classmethod
    def fresh(cls, expires: int) -> Keys:
        """New ones; the API key lasts as long as the server."""
        return cls({MANAGEMENT: Key.fresh(expires), INFERENCE: Key.fresh(expires), API: Key.fresh()})

    def renewed(self, kind: Kind, expires: int) -> Keys:
        """These keys with a new one of one kind."""
        return Keys({**self.keys, kind: Key.fresh(expires)})

    def admit(self, header: bytes, kinds: Iterable[Kind], now: int) -> bool:
        """Whether an `Authorization` header shows a key of one of these kinds."""
        secret = shown_secret(header)
        return secret is not None and any(self.keys[kind].opens(secret, now) for kind in kinds)

    def text(self) -> str:
        """The content of the key file."""
        return json.dumps({kind: key.members() for kind, key in self.keys.items()}, indent=2)
