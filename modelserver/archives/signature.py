"""AWS Signature Version 4 of a GET from S3: what objects that are encrypted with KMS keys demand of a plain url."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self
from urllib.parse import urlsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
_EMPTY: Final = hashlib.sha256(b"").hexdigest()  # of the body that a GET does not have


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Who signs."""

    access: str
    secret: str = field(repr=False)
    region: str
    token: str = field(default="", repr=False)  # of a session

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Raises ValueError if a variable is missing."""
        missing = [name for name in _VARIABLES if not environment.get(name)]
        if missing:
            raise ValueError(f"s3_sse_kms needs the environment variables {', '.join(missing)}")
        access, secret, region = (environment[name] for name in _VARIABLES)
        return cls(access, secret, region, environment.get("AWS_SESSION_TOKEN", ""))

    def sign(self, url: str, now: datetime) -> dict[str, str]:
        """Headers of the signed request, in UTC; none for a url that was signed beforehand."""
        parts = urlsplit(url)
        if "Signature=" in parts.query:
            return {}
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        headers = {"x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
        if self.token:
            headers["x-amz-security-token"] = self.token
        signed = {"host": parts.netloc, **headers}
        names = ";".join(signed)  # already in order
        lines = [f"{name}:{value}" for name, value in signed.items()]
        request = "\n".join(["GET", parts.path or "/", _sorted(parts.query), *lines, "", names, _EMPTY])
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
        signature = _mac(self._key(stamp[:8]), text).hex()
        proof = f"{_ALGORITHM} Credential={self.access}/{scope}, SignedHeaders={names}, Signature={signature}"
        return {**headers, "Authorization": proof}

    def _key(self, day: str) -> bytes:
        key = f"AWS4{self.secret}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = _mac(key, part)
        return key


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _sorted(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))
