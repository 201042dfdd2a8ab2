"""Archives from object stores: a local S3 that checks signatures, and file systems that stand for the other kinds."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.registry import _registry
from fsspec.spec import AbstractFileSystem

from harness.origin import Origin
from harness.s3 import BUCKET, S3, local_s3
from modelserver.archives.limits import Limits
from modelserver.archives.signature import AwsKeys
from modelserver.archives.store import ArchiveStore
from modelserver.errors import Cause, DownloadFailed


def mar() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        name = zipfile.ZipInfo("MAR-INF/MANIFEST.json")  # without a date: every call gives the same
        archive.writestr(name, '{"model": {"modelName": "m", "handler": "h.py"}}')
    return packed.getvalue()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with local_s3() as server:
        server.put("a/m.mar", mar())
        yield server


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment of somebody without keys."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.fixture
def owner(keyless: pytest.MonkeyPatch, s3: S3) -> None:
    """The environment of the bucket's owner."""
    for name, value in s3.environment.items():
        keyless.setenv(name, value)


class House:
    """A model store that may download from everywhere."""

    def __init__(self, root: Path, **limits: int) -> None:
        self.path = root / "store"
        self.path.mkdir()
        self.store = ArchiveStore(self.path, root / "temp", [".*"], limits=Limits(**limits))

    def stored(self) -> list[str]:
        return [path.name for path in self.path.iterdir()]

    def failure(self, url: str, **words: Any) -> str:
        """Why the url cannot be had; nothing stays in the store."""
        with pytest.raises(DownloadFailed) as caught:
            self.store.open(url, **words)
        assert caught.value.message == f"Failed to download archive from: {url}"
        assert self.stored() == []
        certificate = caught.value.certificate
        assert certificate is not None
        assert certificate.cause is Cause.DOWNLOAD
        return certificate.detail


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# Plain urls of S3


@pytest.mark.usefixtures("keyless")
def test_a_url_that_was_signed_beforehand(house: House, s3: S3) -> None:
    url = s3.presigned("a/m.mar")
    assert "Signature=" in url
    with s3.unchecked():
        house.store.open(url)
    assert house.stored() == ["m.mar"]


@pytest.mark.usefixtures("owner")
def test_a_url_that_must_be_signed(house: House, s3: S3) -> None:
    assert house.failure(s3.url("a/m.mar")).startswith("HTTP 403")
    house.store.open(s3.url("a/m.mar"), s3_sse_kms=True)
    assert (house.path / "m.mar").read_bytes() == mar()


@pytest.mark.usefixtures("owner")
def test_a_wrong_signature(house: House, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert house.failure(s3.url("a/m.mar"), s3_sse_kms=True).startswith("HTTP 403")


def test_keys_that_are_missing(house: House, s3: S3, keyless: pytest.MonkeyPatch) -> None:
    keyless.setenv("AWS_ACCESS_KEY_ID", "x")
    missing = "AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION"
    assert house.failure(s3.url("a/m.mar"), s3_sse_kms=True) == f"s3_sse_kms needs the environment variables {missing}"


@pytest.mark.usefixtures("owner")
def test_every_hop_is_signed_for_itself(house: House, s3: S3) -> None:
    """S3 redirects to the region that has the bucket; an address that is signed already is left alone."""
    with Origin() as origin:
        house.store.open(origin.redirect("/1.mar", s3.url("a/m.mar"), 307), s3_sse_kms=True)
        origin.give("/m.mar", mar())
        house.store.open(origin.redirect("/2.mar", "/m.mar?X-Amz-Signature=x"), s3_sse_kms=True)
        assert ["authorization" in headers for headers in origin.headers] == [True, True, False]
    assert sorted(house.stored()) == ["1.mar", "2.mar"]


@pytest.mark.parametrize("token", ["", "session"])
@pytest.mark.parametrize(
    "url",
    [
        "https://bucket.s3.eu-west-1.amazonaws.com/a/m.mar",
        "http://127.0.0.1:9000/bucket/a%20b/m.mar?versionId=3&a=%2F&response-content-type=x",
        "https://bucket.s3.amazonaws.com/m+m=~.mar?b=2&b=1&empty=",
    ],
)
def test_the_signature_is_amazons(url: str, token: str) -> None:
    from botocore.auth import S3SigV4Auth  # slow: not while tests are collected
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("GET", url)
    S3SigV4Auth(Credentials("access", "secret", token or None), "s3", "eu-west-1").add_auth(request)
    theirs = dict(request.headers.items())
    now = datetime.strptime(theirs["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = AwsKeys("access", "secret", "eu-west-1", token).sign(url, now)
    assert {name.lower(): value for name, value in ours.items()} == {n.lower(): v for n, v in theirs.items()}


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(AwsKeys("access", "secret", "region", "secret"))


# Object stores


@pytest.mark.usefixtures("owner")
@pytest.mark.parametrize("scheme", ["s3", "S3", "s3a"])
def test_an_object_of_s3(house: House, scheme: str) -> None:
    archive = house.store.open(f"{scheme}://{BUCKET}/a/m.mar")
    assert archive.downloaded == house.path / "m.mar"
    assert (house.path / "m.mar").read_bytes() == mar()


@pytest.mark.usefixtures("owner")
def test_objects_that_cannot_be_had(house: House) -> None:
    assert "none.mar" in house.failure(f"s3://{BUCKET}/none.mar")
    assert house.failure("s3://nowhere/m.mar")
    assert house.failure(f"s3://{BUCKET}") == f"no file name in url: s3://{BUCKET}"
    assert house.failure(f"s3://{BUCKET}/m.mar::file:///etc/passwd") == "the URL contains `::`"


@pytest.mark.usefixtures("keyless")
def test_an_object_without_keys(house: House, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert "credentials" in house.failure(f"s3://{BUCKET}/a/m.mar")


@pytest.mark.usefixtures("owner")
def test_objects_are_limited_too(tmp_path: Path) -> None:
    detail = House(tmp_path, size=10).failure(f"s3://{BUCKET}/a/m.mar")
    assert detail == "the archive is larger than 10 bytes (max_archive_size)"


class Cloud(AbstractFileSystem):  # type: ignore[misc]
    """Stands for the stores of other clouds; every object has the same content."""

    protocol = ("gs", "gcs", "az", "abfs", "abfss")
    missing = 0  # bytes that do not come
    limits: ClassVar[list[dict[str, Any]]] = []  # what each was made with
    asked: ClassVar[list[str]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limits.append(options)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Called to learn the size."""
        self.asked.append(path)
        return {"name": path, "type": "file", "size": len(mar())}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
        return io.BytesIO(mar()[: len(mar()) - self.missing])


@pytest.fixture
def cloud() -> Iterator[type[Cloud]]:
    """All stores but S3 are this one."""
    for protocol in Cloud.protocol:
        fsspec.register_implementation(protocol, Cloud, clobber=True)
    Cloud.missing = 0
    Cloud.limits.clear()
    Cloud.asked.clear()
    yield Cloud
    for protocol in Cloud.protocol:
        del _registry[protocol]


@pytest.mark.parametrize(
    ("scheme", "limits"),
    [
        ("gs", {"requests_timeout": 60.0}),
        ("gcs", {"requests_timeout": 60.0}),
        ("az", {"connection_timeout": 60.0, "read_timeout": 60.0}),
        ("abfs", {"connection_timeout": 60.0, "read_timeout": 60.0}),
        ("abfss", {"connection_timeout": 60.0, "read_timeout": 60.0}),
    ],
)
def test_objects_of_other_clouds(house: House, cloud: type[Cloud], scheme: str, limits: dict[str, float]) -> None:
    house.store.open(f"{scheme}://bucket/a/m.mar")
    assert (house.path / "m.mar").read_bytes() == mar()
    assert cloud.asked == ["bucket/a/m.mar"]
    assert limits.items() <= cloud.limits[0].items()


@pytest.mark.usefixtures("cloud")
def test_an_object_that_ends_too_early(house: House, cloud: type[Cloud]) -> None:
    cloud.missing = 3
    assert house.failure("gs://bucket/a/m.mar") == f"got {len(mar()) - 3} of {len(mar())} bytes"


@pytest.fixture
def without() -> Iterator[None]:
    """None of the packages that read object stores is installed."""
    blocked = {name: sys.modules.get(name) for name in ("s3fs", "gcsfs", "adlfs")}
    known = {name: _registry.pop(name) for name in ("s3", "s3a") if name in _registry}
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]
    yield
    for name, module in blocked.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module
    _registry.update(known)


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gs"), ("az", "azure"), ("s3", "s3")])
def test_an_extra_that_is_missing(house: House, scheme: str, extra: str) -> None:
    detail = f"{scheme}:// needs the extra {extra}: pip install 'modelserver[{extra}]'"
    assert house.failure(f"{scheme}://bucket/m.mar") == detail
