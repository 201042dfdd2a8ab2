"""Texts of single settings: addresses, numbers, booleans, lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.settings import values
from modelserver.settings.addresses import Address, parse_address
from modelserver.settings.table import FIXED_KEYS, Settings, rows


@pytest.mark.check("config", 11)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("HTTP://Example.org:8080", "http://Example.org:8080"),
        ("https://0.0.0.0", "https://0.0.0.0:8444"),
        ("http://0.0.0.0", "http://0.0.0.0:8081"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("  http://127.0.0.1:8080\t", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[::1]", "http://[::1]:8081"),
        ("http://127.0.0.1:0", "http://127.0.0.1:0"),
        ("http://127.0.0.1:65535", "http://127.0.0.1:65535"),
        ("unix:/tmp/i.sock", "unix:/tmp/i.sock"),
        ("UNIX:/tmp/with blank", "unix:/tmp/with blank"),
    ],
)
def test_addresses_show_their_bind_form(text: str, shown: str) -> None:
    address = parse_address(text, 8081, 8444)
    assert str(address) == shown
    assert parse_address(str(address), 1, 2) == address


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:8080",
        "http://127.0.0.1:8080//",
        "http://127.0.0.1:8080/x",
        "http://",
        "http://:8080",
        "http://::1:8080",
        "http://[::1",
        "http://[127.0.0.1]:80",
        "http://[nonsense]:80",
        "http://a b:80",
        "http://host:",
        "http://host:-1",
        "http://host:\u0661",
        "ftp://host:80",
        "unix:rel.sock",
        "unix:/a\0b",
        "",
    ],
)
def test_bad_addresses_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid binding address: ") as refused:
        parse_address(text, 80, 443)
    assert str(refused.value) == f"Invalid binding address: {text}"


@pytest.mark.parametrize("port", ["65536", "99999", "100000000000"])
def test_ports_out_of_range_are_named(port: str) -> None:
    with pytest.raises(ValueError, match=f"Invalid port number: http://host:{port}$"):
        parse_address(f"http://host:{port}", 80, 443)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address(text, 80, 443)
    except ValueError:
        return
    assert isinstance(address, Address) and 0 <= address.port <= 65535


@pytest.mark.parametrize(("text", "value"), [("7", 7), (" +7 ", 7), ("-7", -7), ("007", 7), ("2147483647", 2**31 - 1)])
def test_integers(text: str, value: int) -> None:
    assert values.integer()(text) == value


@pytest.mark.parametrize("text", ["", "abc", "1.0", "1_000", "0x10", "2147483648", "-2147483649", "1 0", "9" * 5000])
def test_bad_integers_are_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="For input string") as refused:
        values.integer()(text)
    assert str(refused.value) == f'For input string: "{text}"'


def test_integers_below_their_minimum_say_so() -> None:
    with pytest.raises(ValueError, match="bytes must be non-negative: -5"):
        values.integer(0, refusal="bytes must be non-negative: {value}")("-5")
    with pytest.raises(ValueError, match="must be at least 1: 0"):
        values.integer(1)("0")
    assert values.long(1, "")(str(2**63 - 1)) == 2**63 - 1


@pytest.mark.parametrize(("text", "value"), [("true", True), ("TRUE", True), ("true ", True), ("false", False)])
def test_booleans(text: str, value: bool) -> None:
    assert values.flag(text) is value


@pytest.mark.parametrize("text", ["1", "yes", "", "truedefault_response_timeout=60"])
def test_other_booleans_are_false_and_reported(text: str) -> None:
    with pytest.raises(values.Tolerated) as doubt:
        values.flag(text)
    assert doubt.value.value is False
    assert doubt.value.notice.level == "WARN"


@pytest.mark.check("config", 23)
def test_minutes_may_be_fractions() -> None:
    assert values.minutes("0.25") == 0.25


@pytest.mark.check("config", 23)
@pytest.mark.parametrize("text", ["abc", "", "nan", "inf", "-1", "1_0"])
def test_bad_minutes_give_an_hour(text: str) -> None:
    with pytest.raises(values.Tolerated) as doubt:
        values.minutes(text)
    assert doubt.value.value == 60.0
    assert doubt.value.notice.level == "ERROR"
    assert doubt.value.notice.message == "Token expiration not a valid integer"


@pytest.mark.parametrize("text", ["prometheus", " Prome theus", "PROMETHEUS"])
def test_metrics_modes_ignore_blanks_and_case(text: str) -> None:
    assert values.metrics_mode(text) is values.MetricsMode.PROMETHEUS


def test_unknown_metrics_mode_is_log() -> None:
    with pytest.raises(values.Tolerated) as doubt:
        values.metrics_mode("foo")
    assert doubt.value.value is values.MetricsMode.LOG
    assert doubt.value.notice.message.startswith(
        'Configured metrics mode "foo" not supported. Defaulting to "LOG" mode: '
    )


def test_patterns_are_trimmed_and_ignore_case() -> None:
    first, second = values.patterns("https://a/.*, file://.*")
    assert second.fullmatch("FILE:///x")
    assert first.fullmatch("https://a/m.mar")
    assert not first.fullmatch("https://b/m.mar")


def test_blacklist_keeps_its_blanks_and_case() -> None:
    pattern = values.pattern("FOO |.*SECRET")
    assert pattern.fullmatch("FOO ")
    assert not pattern.fullmatch("foo ")
    with pytest.raises(ValueError, match="Invalid regular expression"):
        values.pattern("*")
    assert values.pattern("[[a]").fullmatch("[")


@pytest.mark.parametrize("text", ["", " ", "a\0b"])
def test_bad_paths(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid path"):
        values.path(text)


def test_models_are_three_levels_of_json() -> None:
    assert values.models(" ") == {}
    assert values.models('{"noop": {"1.0": {"minWorkers": 1}}}') == {"noop": {"1.0": {"minWorkers": 1}}}


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"a": 1}', '{"a": {"1.0": 2}}', "[" * 100_000])
def test_bad_models_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="models"):
        values.models(text)


def test_every_row_is_declared_whole() -> None:
    for key, row in rows().items():
        assert row.key == key and row.help, key
        assert row.env != ("<TS_KEY>",), key
        assert all(name.startswith("TS_") for name in row.env), key
    assert not FIXED_KEYS & rows().keys()


def test_environment_names() -> None:
    assert rows()["job_queue_size"].env == ("TS_JOB_QUEUE_SIZE",)
    assert rows()["ts_header_key_sequence_id"].env == ("TS_HEADER_KEY_SEQUENCE_ID",)
    assert rows()["token_expiration_min"].env == ("TS_TOKEN_EXPIRATION_TIME_MIN", "TS_TOKEN_EXPIRATION_MIN")
    without = {key for key, row in rows().items() if not row.env}
    assert without == {
        "models",
        "model_snapshot",
        "metric_time_interval",
        "system_metrics_cmd",
        "use_native_io",
        "io_ratio",
        "enable_envvars_config",
        "use_env_allowed_urls",
        "plugins_path",
        "vmargs",
        "async_logging",
    }


def test_settings_without_configuration() -> None:
    settings = Settings()
    assert str(settings.inference_address) == "http://127.0.0.1:8080"
    assert settings.metrics_config == settings.home / "ts" / "configs" / "metrics.yaml"
    assert settings.source("job_queue_size") == "default"
    assert settings.drain_timeout == 10
    assert settings.lame_duck_delay == 0
    assert Settings(job_queue_size=3).job_queue_size == 3


@pytest.mark.parametrize(("configured", "usable"), [(None, 2), (0, 0), (1, 1), (3, 2), (-1, 0)])
def test_number_of_gpu_is_clamped(configured: int | None, usable: int) -> None:
    assert Settings(number_of_gpu=configured).usable_gpus(2) == usable


def test_home_contains_ts() -> None:
    assert (Settings().home / "ts" / "version.txt").is_file()
    assert Path(Settings().home).is_absolute()
