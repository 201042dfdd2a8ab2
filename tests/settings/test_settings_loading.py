"""Precedence, file choice, and what stops a start."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.errors import ConfigurationError
from modelserver.settings.command_line import CommandLine, parse
from modelserver.settings.loading import load
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings, rows
from modelserver.settings.values import MetricsMode
from modelserver.settings.variables import VARIABLES
from modelserver.settings.worker_environment import worker_environment


def loaded(cwd: Path, text: str = "", *flags: str, **environ: str) -> Settings:
    """Settings with this text in `./config.properties`."""
    (cwd / "config.properties").write_text(text, encoding="utf-8")
    return load(parse(flags), environ, cwd)


def messages(settings: Settings, level: str) -> list[str]:
    return [notice.message for notice in settings.notices if notice.level == level]


def test_nothing_given(tmp_path: Path) -> None:
    settings = load(CommandLine(), {}, tmp_path)
    assert settings.config_file is None
    assert settings.properties == {}
    assert settings.log_location == tmp_path / "logs"
    assert settings.temp_dir == Path("/tmp")
    assert all(getattr(settings, key) == getattr(Settings(), key) for key in rows())


def test_choice_of_the_file(tmp_path: Path) -> None:
    for name in ("config.properties", "flag.cfg", "variable.cfg"):
        (tmp_path / name).write_text(f"default_service_handler={name}")
    flag = parse(["--ts-config", "flag.cfg"])
    environ = {"TS_CONFIG_FILE": "variable.cfg"}
    assert load(parse([]), {}, tmp_path).config_file == "config.properties"
    assert load(flag, {}, tmp_path).config_file == "flag.cfg"
    chosen = load(flag, environ, tmp_path)
    assert (chosen.config_file, chosen.default_service_handler) == ("variable.cfg", "variable.cfg")
    with pytest.raises(ConfigurationError, match=r"^--ts-config file not found: gone$"):
        load(flag, {"TS_CONFIG_FILE": "gone"}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"^--ts-config file not found: \.$"):
        load(parse(["--ts-config", "."]), {}, tmp_path)


def test_command_line_beats_the_file(tmp_path: Path) -> None:
    text = "model_store=a\nload_models=x.mar\nenable_model_api=false\nplugins_path=/p\n"
    flags = (
        "--model-store",
        "b",
        "--models",
        "y.mar",
        "z=z.mar",
        "--enable-model-api",
        "--dt",
        "--ppath",
        "/q",
        "--ncs",
    )
    settings = loaded(tmp_path, text, *flags)
    assert settings.model_store == tmp_path / "b"
    assert settings.workflow_store == tmp_path / "b"
    assert settings.load_models == "y.mar,z=z.mar"
    assert settings.enable_model_api and settings.disable_token_authorization
    assert settings.plugins_path == ("/p", "/q")
    assert not settings.snapshots
    assert settings.source("model_store") == "command line --model-store"
    assert settings.source("workflow_store") == "key model_store"


@pytest.mark.check("config", 7)
@pytest.mark.check("config", 9)
def test_environment_counts_only_where_the_file_allows_it(tmp_path: Path) -> None:
    flags = ("--models", "flag.mar", "--disable-token-auth")
    environ = {
        "TS_LOAD_MODELS": "env.mar",
        "TS_DISABLE_TOKEN_AUTHORIZATION": "false",
        "TS_ENABLE_ENVVARS_CONFIG": "true",
    }
    closed = loaded(tmp_path, "enable_envvars_config=1", *flags, **environ)
    assert (closed.load_models, closed.disable_token_authorization) == ("flag.mar", True)
    opened = loaded(tmp_path, "enable_envvars_config=true ", *flags, **environ)
    assert (opened.load_models, opened.disable_token_authorization) == ("env.mar", False)
    assert opened.source("load_models") == "environment TS_LOAD_MODELS"
    assert opened.properties["load_models"] == "env.mar"


def test_irregular_environment_names(tmp_path: Path) -> None:
    on = "enable_envvars_config=true\n"
    assert loaded(tmp_path, on, TS_TOKEN_EXPIRATION_TIME_MIN="1", TS_TOKEN_EXPIRATION_MIN="2").token_expiration_min == 1
    assert loaded(tmp_path, on, TS_TOKEN_EXPIRATION_MIN="2").token_expiration_min == 2
    assert loaded(tmp_path, on, TS_HEADER_KEY_SEQUENCE_ID="x").ts_header_key_sequence_id == "x"
    assert not loaded(tmp_path, on, TS_ASYNC_LOGGING="true").async_logging
    assert loaded(tmp_path, on, TS_METRIC_TIME_INTERVAL="5").metric_time_interval == 60
    store = loaded(tmp_path, on + "model_store=a", TS_MODEL_STORE="b")
    assert (store.model_store, store.workflow_store) == (tmp_path / "b", tmp_path / "a")


@pytest.mark.check("config", 8)
def test_allowed_urls_from_the_environment_need_a_second_key(tmp_path: Path) -> None:
    on = "enable_envvars_config=true\nallowed_urls=file://.*\n"
    assert loaded(tmp_path, on, TS_ALLOWED_URLS="s3://.*").allowed_urls[0].pattern == "file://.*"
    both = loaded(tmp_path, on + "use_env_allowed_urls=true", TS_ALLOWED_URLS="s3://.*")
    assert both.allowed_urls[0].pattern == "s3://.*"


@pytest.mark.parametrize(
    ("variable", "key", "on"),
    [("oip", "false", True), ("true", "true", False), ("OIP", "true", False), ("", "true", True), (None, "true", True)],
)
def test_open_inference_variable_is_always_read(tmp_path: Path, variable: str | None, key: str, on: bool) -> None:
    environ = {} if variable is None else {"TS_OPEN_INFERENCE_PROTOCOL": variable}
    settings = loaded(tmp_path, f"ts_open_inference_protocol={key}\nenable_envvars_config=true", **environ)
    assert settings.ts_open_inference_protocol is on


def test_environment_values_are_not_substituted(tmp_path: Path) -> None:
    text = "enable_envvars_config=true\nload_models=$$X$$"
    assert loaded(tmp_path, text, X="a.mar").load_models == "a.mar"
    assert loaded(tmp_path, text, X="a.mar", TS_LOAD_MODELS="$$X$$").load_models == "$$X$$"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "inference_address=127.0.0.1:8080",
            "Invalid binding address: 127.0.0.1:8080 (inference_address, config.properties:1): "
            "expected http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH",
        ),
        (
            "\n\nnumber_of_netty_threads=abc",
            'For input string: "abc" (number_of_netty_threads, config.properties:3): expected an integer',
        ),
        (
            "job_queue_size=",
            'For input string: "" (job_queue_size, config.properties:1): expected an integer from 1',
        ),
        (
            "max_request_size=-5",
            "bytes must be non-negative: -5 (max_request_size, config.properties:1): expected an integer from 0",
        ),
        (
            "default_workers_per_model=-1",
            "must be at least 0: -1 (default_workers_per_model, config.properties:1): expected an integer from 0",
        ),
        (
            "grpc_inference_port=abc",
            'For input string: "abc" (grpc_inference_port, config.properties:1): expected a port from 0 to 65535',
        ),
        (
            "blacklist_env_vars=*",
            "Invalid regular expression: * (nothing to repeat at position 0) (blacklist_env_vars, config.properties:1)"
            ": expected a regular expression",
        ),
        ("model_store=\\u0000\\n", r"Invalid path: '\x00' (model_store, config.properties:1): expected a path"),
        (
            "grpc_inference_max_connection_age_ms=0",
            "max connection age must be positive: 0 (grpc_inference_max_connection_age_ms, config.properties:1): "
            "expected a 64-bit integer from 1",
        ),
        ("a=$$NOPE$$", "Invalid Environment Variable NOPE (a, config.properties:1)"),
        (
            "use_native_io=false\nmetrics_address=unix:/tmp/x",
            "unix domain socket requires use_native_io set to true. (metrics_address, config.properties:2)",
        ),
        ("inference_address=http://*:80", "Unknown host: http://*:80 (inference_address, config.properties:1)"),
        ("grpc_management_address=*", "Unknown host: * (grpc_management_address, config.properties:1)"),
        (
            "grpc_inference_address=http://x",
            "Invalid host: http://x (grpc_inference_address, config.properties:1): "
            "expected a host name, an IP address or unix:/PATH",
        ),
        (
            "use_native_io=false\ngrpc_inference_address=unix:/x",
            "unix domain socket requires use_native_io set to true. (grpc_inference_address, config.properties:2)",
        ),
        (
            "enable_grpc_ssl=true\ncertificate_file=config.properties",
            "TLS needs keystore, or both certificate_file and private_key_file (enable_grpc_ssl, config.properties:1)",
        ),
        (
            "log_level=loud",
            'Invalid value: "loud" (log_level, config.properties:1): '
            "expected OFF, FATAL, ERROR, WARN, INFO, DEBUG, TRACE or ALL",
        ),
    ],
)
def test_refusals(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(tmp_path, text)
    assert str(refused.value) == error


@pytest.mark.parametrize(
    ("inference", "management"),
    [
        ("http://127.0.0.1:8080", "https://127.0.0.1:8080"),
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::]:8080"),
    ],
)
def test_two_listeners_cannot_share_a_port_unless_they_are_one(tmp_path: Path, inference: str, management: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(tmp_path, f"inference_address={inference}\nmanagement_address={management}")
    assert str(refused.value) == (
        f"{management} takes the port of inference_address={inference}: only equal REST addresses share one "
        "(management_address, config.properties:2)"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "grpc_management_port=7070",
            "127.0.0.1:7070 takes the port of grpc_inference_port=127.0.0.1:7070: only equal REST addresses share one "
            "(grpc_management_port, config.properties:1)",
        ),
        (
            "grpc_inference_address=0.0.0.0\ngrpc_inference_port=8082",
            "0.0.0.0:8082 takes the port of metrics_address=http://127.0.0.1:8082: only equal REST addresses share one "
            "(grpc_inference_port, config.properties:2)",
        ),
    ],
)
def test_grpc_shares_no_port(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(tmp_path, text)
    assert str(refused.value) == error
    loaded(tmp_path, "grpc_inference_port=0\ngrpc_management_port=0")
    loaded(tmp_path, f"grpc_inference_address=unix:{tmp_path}/g\ngrpc_inference_port=8080")


@pytest.mark.parametrize(
    ("inference", "management", "more"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", ""),
        ("http://127.0.0.1:0", "http://0.0.0.0:0", ""),
        ("http://127.0.0.1:8080", "http://127.0.0.2:8080", ""),
        ("http://127.0.0.1:8080", "http://[::1]:8080", ""),
        ("unix:/tmp/a", "unix:/tmp/b", ""),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081", "metrics_address=http://0.0.0.0:8080\nenable_metrics_api=0"),
    ],
)
def test_listeners_that_do_not_collide(tmp_path: Path, inference: str, management: str, more: str) -> None:
    settings = loaded(tmp_path, f"inference_address={inference}\nmanagement_address={management}\n{more}")
    assert (str(settings.inference_address), str(settings.management_address)) == (inference, management)


def test_misspelt_keys_are_pointed_at(tmp_path: Path) -> None:
    text = "job_queue=7\nNUM_WORKERS=1\nNumber-Of-GPU=1\nversion=9\na\\nb=1\n"
    settings = loaded(tmp_path, text)
    assert settings.job_queue_size == 100
    warned = [text for text in messages(settings, "WARN") if text.startswith("Unknown")]
    assert warned == [
        "Unknown key job_queue: did you mean job_queue_size? (config.properties:1)",
        "Unknown key Number-Of-GPU: did you mean number_of_gpu? (config.properties:3)",
    ]
    assert messages(settings, "INFO") == [
        "Unknown key NUM_WORKERS has no effect (config.properties:2)",
        r"Unknown key a\nb has no effect (config.properties:5)",
    ]


def test_a_file_that_is_no_configuration_is_not_listed_whole(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "".join(f"{'x' * 200}{number}\n" for number in range(30)))
    assert len(messages(settings, "INFO")) == 20
    assert max(map(len, messages(settings, "INFO"))) < 150
    assert messages(settings, "WARN")[-1] == "10 more unknown keys"


def test_misspelt_variables_are_pointed_at_where_variables_count(tmp_path: Path) -> None:
    environ = {"TS_JOB_QUEUE": "7", "TS_CONFIG": "x", "TS_BENCHMARK": "1", "TS_MODELS": "{}", "JOB_QUEUE_SIZE": "1"}
    assert messages(loaded(tmp_path, "allowed_urls=x", **environ), "WARN") == []
    opened = loaded(tmp_path, "enable_envvars_config=true\nallowed_urls=x", **environ)
    assert messages(opened, "WARN") == [
        "Unknown environment variable TS_JOB_QUEUE: did you mean TS_JOB_QUEUE_SIZE?",
        "TS_MODELS has no effect: models is not read from the environment",
    ]


def test_variables_of_workers_are_known(tmp_path: Path) -> None:
    """What every worker is given is no misspelt setting where somebody exports it."""
    given = dict.fromkeys(worker_environment(Settings()), "x")
    settings = loaded(tmp_path, "enable_envvars_config=true", **given)
    assert not [notice for notice in settings.notices if "environment variable" in notice.message]
    assert set(given) <= set(VARIABLES)


def test_refusals_name_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'^For input string: "\\udcff" \(job_queue_size, environment TS_'):
        loaded(tmp_path, "enable_envvars_config=true", TS_JOB_QUEUE_SIZE="\udcff")


@pytest.mark.check("config", 11)
def test_key_material_must_exist_where_it_is_used(tmp_path: Path) -> None:
    assert loaded(tmp_path, "keystore=gone.p12").keystore == tmp_path / "gone.p12"
    for use in ("enable_grpc_ssl=true", "management_address=https://127.0.0.1"):
        with pytest.raises(ConfigurationError, match=f"^NoSuchFileException: {tmp_path}/gone.p12 "):
            loaded(tmp_path, f"keystore=gone.p12\n{use}")
    assert loaded(tmp_path, "management_address=https://127.0.0.1").management_address.port == 8444
    pair = "certificate_file=config.properties\nprivate_key_file=config.properties\nenable_grpc_ssl=true"
    assert loaded(tmp_path, pair).enable_grpc_ssl


def test_doubtful_values_are_noticed_and_survived(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "metrics_mode=foo\ntoken_expiration_min=soon\ndebug=2\n")
    assert settings.metrics_mode is MetricsMode.LOG
    assert settings.token_expiration_min == 60
    assert not settings.debug
    assert len(messages(settings, "ERROR")) == 2
    assert '"2" is neither true nor false: taken as false (debug, config.properties:3)' in messages(settings, "WARN")


def test_open_urls_are_warned_about(tmp_path: Path) -> None:
    warning = "Your torchserve instance can access any URL to load models. "
    assert messages(loaded(tmp_path), "WARN")[0].startswith(warning)
    assert not messages(loaded(tmp_path, "allowed_urls=x, y"), "WARN")


def test_keys_of_the_jvm_are_noticed_once_each(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "io_ratio=60\nuse_native_io=true\nprefer_direct_buffer=false\nvmargs=-Xmx1g\n")
    assert messages(settings, "INFO") == [
        "prefer_direct_buffer has no effect: there is no JVM (config.properties:3)",
        "io_ratio has no effect: there is no JVM (config.properties:1)",
    ]
    assert Notice("INFO", "util.ConfigManager", messages(settings, "INFO")[0]) in settings.notices


def test_names_of_vmargs_that_count(tmp_path: Path) -> None:
    vmargs = (
        f"vmargs=-Xmx512m -Dlog4j.configurationFile=file:///my%20x.xml -DLOG_LOCATION=/l -DMETRICS_LOCATION=/m "
        f"-DTS_DEBUG=true -Djava.io.tmpdir=/var/tmp -Dmodel_server_home={tmp_path} -Dother=a=b -Dalone"
    )
    settings = loaded(tmp_path, vmargs)
    assert settings.log_config == Path("/my x.xml")
    assert settings.log_location == tmp_path / "logs"
    assert (settings.snapshot_location, settings.reported_metrics_location) == (Path("/l"), Path("/m"))
    assert settings.debug
    assert settings.temp_dir == Path("/var/tmp")
    assert settings.home == tmp_path
    assert settings.metrics_config == tmp_path / "ts" / "configs" / "metrics.yaml"
    assert settings.system_properties["other"] == "a=b"
    assert settings.system_properties["alone"] == ""


def test_the_log_configuration_has_two_names(tmp_path: Path) -> None:
    newer, older = "-Dlog4j2.configurationFile=file:///new.xml", "-Dlog4j.configurationFile=/old.xml"
    assert loaded(tmp_path, f"vmargs={newer}").log_config == Path("/new.xml")
    assert loaded(tmp_path, f"vmargs={newer} {older}").log_config == Path("/old.xml")
    assert loaded(tmp_path, f"vmargs={newer} -Dlog4j.configurationFile=").log_config == Path("/new.xml")
    assert loaded(tmp_path, f"vmargs={newer}", "--log-config", "y.xml").log_config == tmp_path / "y.xml"


def test_environment_and_flags_beat_vmargs(tmp_path: Path) -> None:
    vmargs = "vmargs=-Dlog4j.configurationFile=/x.xml -DLOG_LOCATION=/l -Djava.io.tmpdir=/gone -DTS_DEBUG=true\n"
    settings = loaded(tmp_path, vmargs, "--log-config", "y.xml", LOG_LOCATION="here", TEMP="/tmp")
    assert settings.log_config == tmp_path / "y.xml"
    assert settings.log_location == settings.snapshot_location == tmp_path / "here"
    assert settings.temp_dir == Path("/tmp")
    assert not loaded(tmp_path, vmargs + "enable_envvars_config=true", TS_DEBUG="false").debug


def test_missing_home(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^Model server home not exist: /gone"):
        loaded(tmp_path, TS_MODEL_SERVER_HOME="/gone")


def test_fixed_keys_change_nothing(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "python=/x\nversion=9\nmodel_server_home=/gone\ntsConfigFile=z\nNUM_WORKERS=1")
    assert (settings.python, settings.home, settings.config_file) == (
        Settings().python,
        Settings().home,
        "config.properties",
    )
    assert settings.properties == {"NUM_WORKERS": "1"}


@given(st.binary())
def test_no_file_crashes_the_loading(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    cwd = tmp_path_factory.getbasetemp()
    (cwd / "any.cfg").write_bytes(content)
    try:
        load(CommandLine(ts_config="any.cfg"), {}, cwd)
    except ConfigurationError as error:
        str(error).encode()


@given(st.sampled_from(sorted(rows())), st.text(st.characters(exclude_categories=["Cs"])))
def test_no_value_crashes_the_loading(tmp_path_factory: pytest.TempPathFactory, key: str, text: str) -> None:
    cwd = tmp_path_factory.getbasetemp()
    escaped = "".join(f"\\u{unit:04x}" for unit in memoryview(text.encode("utf-16-le")).cast("H"))
    (cwd / "value.cfg").write_text(f"{key}={escaped}\n")
    try:
        settings = load(CommandLine(ts_config="value.cfg"), {}, cwd)
    except ConfigurationError as error:
        assert f"({key}, value.cfg:1)" in str(error)
        assert str(error).isprintable()
        return
    assert settings.source(key) == "value.cfg:1"
