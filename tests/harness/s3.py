"""A local S3 that checks signatures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.request import Request, urlopen

BUCKET: Final = "models"
_ALL: Final = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'


class S3:
    """One bucket. Its owner has keys; nobody else may read it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._keys = self._make_owner()
        self._owner = self._client("s3", *self._keys)
        self._owner.create_bucket(Bucket=BUCKET)
        self._check(after="0")

    @property
    def environment(self) -> dict[str, str]:
        """What the owner's programs see."""
        access, secret = self._keys
        return {
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def put(self, key: str, content: bytes) -> None:
        """Store an object, encrypted with a KMS key."""
        self._owner.put_object(Bucket=BUCKET, Key=key, Body=content, ServerSideEncryption="aws:kms")

    def url(self, key: str) -> str:
        """The plain address of an object."""
        return f"{self.endpoint}/{BUCKET}/{key}"

    def presigned(self, key: str) -> str:
        """An address of an object that needs no keys for a while."""
        parameters = {"Bucket": BUCKET, "Key": key}
        return str(self._owner.generate_presigned_url("get_object", Params=parameters, ExpiresIn=600))

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """No signatures are checked for a while: those in addresses cannot be."""
        self._check(after="inf")
        yield
        self._check(after="0")

    def forget(self) -> None:
        """No bucket, no owner, no checks: there is one state for all servers of a process."""
        self._check(after="inf")
        self._order("reset", "")

    def _check(self, after: str) -> None:
        """Check the signatures of all but so many requests."""
        self._order("reset-auth", after)

    def _make_owner(self) -> tuple[str, str]:
        iam = self._client("iam", "any", "any")
        iam.create_user(UserName="owner")
        iam.put_user_policy(UserName="owner", PolicyName="all", PolicyDocument=_ALL)
        keys = iam.create_access_key(UserName="owner")["AccessKey"]
        return keys["AccessKeyId"], keys["SecretAccessKey"]

    def _client(self, service: str, access: str, secret: str) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            config=Config(signature_version="s3v4"),
        )

    def _order(self, order: str, text: str) -> None:
        headers = {"Content-Type": "text/plain"}
        with urlopen(Request(f"{self.endpoint}/moto-api/{order}", text.encode(), headers, method="POST")):
            pass


@contextmanager
def local_s3() -> Iterator[S3]:
    """On a port of its own, while the `with` lasts."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        storage = S3(f"http://{host}:{port}")
        yield storage
        storage.forget()
    finally:
        server.stop()
