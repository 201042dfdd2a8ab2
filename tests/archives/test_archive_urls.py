"""Urls that could be read in two ways, and where redirects may lead."""

from __future__ import annotations

import pytest

from modelserver.archives.urls import AllowedUrls, check_web_url, file_path, redirected, without_query


@pytest.mark.parametrize(
    "url",
    [
        "http://good.com@evil.com/x.mar",
        "http://user:word@good.com/x.mar",
        "http://good.com:80@evil.com/x.mar",
        "http://@good.com/x.mar",
        "http://good.com\\@evil.com/x.mar",
        "http://good.com\\.evil.com/x.mar",
        "http://good.com/a\\b.mar",
        "http://good.com /x.mar",
        "http://good.com/a b.mar",
        " http://good.com/x.mar",
        "http://good.com/x.mar\n",
        "http://go\tod.com/x.mar",
        "http://good.com/x\0.mar",
        "http://good.com\x7f/x.mar",
        "http://good.com%2Fx.mar",
        "http://good.com%2e.evil.com/x.mar",
        "http://good.com%40evil.com/x.mar",
        "http://good。com/x.mar",
        "http:///x.mar",
        "http://:80/x.mar",
        "http://good.com:/x.mar",
        "http://good.com:x/x.mar",
        "http://[::1/x.mar",
        "http://[evil.com]/x.mar",
        "http://good.com/open/%2e%2e/closed/x.mar",
        "http://good.com/open/.%2E/closed/x.mar",
        "http://good.com/open/../closed/x.mar",
    ],
)
def test_ambiguous_web_urls(url: str) -> None:
    with pytest.raises(ValueError):
        check_web_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://good.com/x.mar",
        "HTTPS://Good.COM:8443/a/b%20c.mar?signature=a/../b@c%0a#part",
        "http://127.0.0.1:1/x.mar",
        "http://[::1]:80/x.mar",
        "http://my_host-1/x.mar",
        "http://good.com/a@b:c.mar",
    ],
)
def test_plain_web_urls(url: str) -> None:
    check_web_url(url)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a/b.mar", "/a/b.mar"),
        ("FILE://localhost/a%20b.mar", "/a b.mar"),
        ("file:///a.mar?version=1", "/a.mar"),
        ("file:///a%3f.mar", "/a?.mar"),
    ],
)
def test_paths_of_file_urls(url: str, path: str) -> None:
    assert file_path(url) == path


@pytest.mark.parametrize(
    "url", ["file://host/a.mar", "file://a@localhost/a.mar", "file:///open/%2e%2e/a.mar", "file:///a%00.mar"]
)
def test_file_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        file_path(url)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/other/y.mar", "https://good.com/other/y.mar"),
        ("y.mar", "https://good.com/open/y.mar"),
        ("../y.mar", "https://good.com/y.mar"),
        ("//good.com/y.mar", "https://good.com/y.mar"),
        (" https://good.com/a b.mar ", "https://good.com/a%20b.mar"),
        ("https://good.com/\xc3\xa9.mar", "https://good.com/%C3%A9.mar"),
        ("https://good.com/y.mar?a=%2F#b", "https://good.com/y.mar?a=%2F#b"),
    ],
)
def test_where_a_redirect_leads(location: str, target: str) -> None:
    assert redirected("https://good.com/open/x.mar", location, AllowedUrls(["https://good.com/.*"])) == target


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        (
            "https://evil.com/x.mar?secret",
            "redirected to https://evil.com/x.mar: that does not match any allowed URL(s)",
        ),
        ("//evil.com/x.mar", "redirected to https://evil.com/x.mar: that does not match any allowed URL(s)"),
        ("http://good.com/x.mar", "redirected to http://good.com/x.mar: from https to http"),
        ("file:///etc/passwd", "redirected to file:///etc/passwd: neither http nor https"),
        ("s3://bucket/x.mar", "redirected to s3://bucket/x.mar: neither http nor https"),
    ],
)
def test_redirects_that_are_not_followed(location: str, reason: str) -> None:
    allowed = AllowedUrls(["https?://good.com/.*", "file://.*", "s3://.*"])
    with pytest.raises(ValueError) as caught:
        redirected("https://good.com/x.mar", location, allowed)
    assert str(caught.value) == reason


def test_a_pattern_stands_for_the_whole_url_in_any_case() -> None:
    allowed = AllowedUrls(["https://good.com/.*[.]mar"])
    assert allowed.admit("HTTPS://GOOD.com/a.MAR")
    assert not allowed.admit("https://good.com/a.mar?x")
    assert not allowed.admit("xhttps://good.com/a.mar")
    assert not allowed.admit("https://good.com/a\nb.mar")
    assert not AllowedUrls([]).admit("https://good.com/a.mar")


def test_what_is_shown_of_a_url() -> None:
    assert without_query("https://h/x.mar?Signature=a?b#c") == "https://h/x.mar"
    assert without_query("https://h/x.mar#c") == "https://h/x.mar"
