"""The table of settings: one field per key of `config.properties`, and what the command line and the environment add.

Defaults, parsing, environment names, documentation and the start-up dump come from here. `Settings()` is the server
without any configuration.
"""

# ruff: noqa: RUF009 -- `row` and `computed` make dataclass fields, which the linter cannot know.

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import modelserver.settings.values as v
from modelserver.settings.addresses import Address
from modelserver.settings.forms import optional
from modelserver.settings.notices import Notice
from modelserver.settings.rows import NO_ENV, Row, computed, row, rows_of
from modelserver.settings.snapshot import Snapshot, parse_snapshot

_SHARED_MODULES: Final = (
    "torch",
    "ts.torch_handler.image_classifier",
    "ts.torch_handler.image_segmenter",
    "ts.torch_handler.object_detector",
    "ts.torch_handler.text_classifier",
)
_OPEN_URLS: Final = "file://.*|http(s)?://.*"
_AGE: Final = "max connection age must be positive: {value}"
_GRACE: Final = "max connection age grace must be non-negative: {value}"
_BYTES: Final = "bytes must be non-negative: {value}"

# Keys that files hold (saved configurations do) but that cannot be set by one: the running program knows better.
FIXED_KEYS: Final = frozenset({"model_server_home", "python", "tsConfigFile", "version"})


@cache
def detected_home() -> Path:
    """The directory that contains the `ts` package, found without importing it."""
    spec = importlib.util.find_spec("ts")
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))).parent if places else Path(__file__).parents[1]


def _metrics_config() -> Path:
    return detected_home() / "ts" / "configs" / "metrics.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every effective setting of a server, typed and checked."""

    # Addresses and protocols
    inference_address: Address = row(Address("http", "127.0.0.1", 8080), v.address(80, 443), "inference REST")
    management_address: Address = row(Address("http", "127.0.0.1", 8081), v.address(8081, 8444), "management REST")
    metrics_address: Address = row(Address("http", "127.0.0.1", 8082), v.address(8082, 8445), "metrics REST")
    enable_metrics_api: bool = row(True, v.flag, "serve /metrics")
    grpc_inference_address: str = row("127.0.0.1", v.host, "host of inference gRPC")
    grpc_management_address: str = row("127.0.0.1", v.host, "host of management gRPC")
    grpc_inference_port: int = row(7070, v.port, "port of inference gRPC")
    grpc_management_port: int = row(7071, v.port, "port of management gRPC")
    grpc_inference_max_connection_age_ms: int | None = row(
        None, v.long(1, _AGE), "close inference gRPC connections of this age; unset: never", unit="ms"
    )
    grpc_management_max_connection_age_ms: int | None = row(
        None, v.long(1, _AGE), "close management gRPC connections of this age; unset: never", unit="ms"
    )
    grpc_inference_max_connection_age_grace_ms: int | None = row(
        None, v.long(0, _GRACE), "time for running calls of an aged inference connection; unset: unlimited", unit="ms"
    )
    grpc_management_max_connection_age_grace_ms: int | None = row(
        None, v.long(0, _GRACE), "time for running calls of an aged management connection; unset: unlimited", unit="ms"
    )
    enable_grpc_ssl: bool = row(False, v.flag, "TLS on both gRPC ports")
    enable_grpc_health: bool = row(False, v.flag, "serve the standard gRPC health service")
    enable_grpc_reflection: bool = row(False, v.flag, "serve gRPC reflection")
    ts_open_inference_protocol: bool = row(
        False,
        v.flag,
        "Open Inference over REST and gRPC; its environment variable is always read and means on only as `oip`",
        env=("TS_OPEN_INFERENCE_PROTOCOL",),
    )
    cors_allowed_origin: str = row("", v.string, "access-control-allow-origin of every REST response")
    cors_allowed_methods: str = row("", v.string, "access-control-allow-methods of every REST response")
    cors_allowed_headers: str = row("", v.string, "access-control-allow-headers of every REST response")
    max_request_size: int = row(6553500, v.integer(0, refusal=_BYTES), "largest request", unit="bytes")
    max_response_size: int = row(6553500, v.integer(0, refusal=_BYTES), "largest reply of a worker", unit="bytes")
    initial_worker_port: int = row(9000, v.integer(), "id of the first worker")
    initial_distribution_port: int = row(29500, v.integer(), "id of the first worker of a parallel model")

    # TLS
    keystore: Path | None = row(None, optional(v.path), "PKCS12 or JKS key store; wins over the PEM pair")
    keystore_pass: str = row("changeit", v.string, "password of the key store and its key", secret=True)
    keystore_type: str = row("PKCS12", v.one_of("PKCS12", "JKS"), "kind of the key store; the file itself tells")
    private_key_file: Path | None = row(None, optional(v.path), "PEM private key")
    private_key_pass: str = row("", v.string, "password of an encrypted PEM private key", secret=True)
    certificate_file: Path | None = row(None, optional(v.path), "PEM certificate chain, leaf first")
    client_ca_file: Path | None = row(
        None, optional(v.path), "PEM certificates of authorities; clients of https have to show a certificate of one"
    )

    # Models and workers
    model_store: Path | None = row(None, optional(v.path), "directory of model archives")
    workflow_store: Path | None = row(None, optional(v.path), "directory of workflow archives; unset: model_store")
    load_models: str = row("", v.string, "models to load at start-up: `all`, or names of archives")
    models: v.Models = computed(dict, v.models, "JSON: model -> version -> options", env=NO_ENV)
    model_snapshot: Snapshot | None = row(
        None, optional(parse_snapshot), "JSON: models of a saved configuration; load_models is ignored then", env=NO_ENV
    )
    default_workers_per_model: int = row(0, v.integer(0), "workers of a model; 0: as many as GPUs, else CPUs")
    number_of_gpu: int | None = row(None, v.integer(), "use at most so many GPUs; unset: all")
    job_queue_size: int = row(100, v.integer(1), "waiting jobs per model version")
    job_queue_bytes: int = row(1 << 30, v.long(0, _BYTES), "bodies of waiting jobs per model version", unit="bytes")
    default_response_timeout: int = row(120, v.integer(1), "longest prediction", unit="s")
    default_startup_timeout: int = row(120, v.integer(1), "longest load of a model", unit="s")
    unregister_model_timeout: int = row(120, v.integer(0), "longest wait for the end of workers", unit="s")
    drain_timeout: int = row(10, v.integer(0), "time for accepted work on stop, scale-down and unregister", unit="s")
    lame_duck_delay: int = row(
        0, v.integer(0), "time on stop in which /ping is unhealthy and connections end, before the drain", unit="s"
    )
    max_requests_per_worker: int = row(0, v.integer(0), "requests after which a worker is replaced; 0: never")
    max_worker_memory_mb: int = row(0, v.integer(0), "memory above which a worker is replaced; 0: never", unit="MiB")
    preload_modules: tuple[str, ...] = row(
        _SHARED_MODULES, v.csv, "Python modules that workers find in memory, because their parent has imported them"
    )
    default_service_handler: str = row("", v.string, "handler of archives that name none")
    service_envelope: str = row("", v.string, "envelope of all models: json, body, kserve, kservev2")
    allowed_urls: tuple[v.Pattern, ...] = row(
        v.patterns(_OPEN_URLS),
        v.patterns,
        "whole URLs that models may come from; its environment variable also needs use_env_allowed_urls",
    )
    max_archive_size: int = row(
        1 << 38,
        v.integer(1, 2**63 - 1),
        "largest archive: the file that is downloaded, and what is unpacked",
        unit="bytes",
    )
    max_archive_members: int = row(1 << 18, v.integer(1), "most files and folders of an archive")
    download_timeout: int = row(
        60, v.integer(1), "longest time without progress of a download, from the connection on", unit="s"
    )
    use_env_allowed_urls: bool = row(False, v.flag, "let TS_ALLOWED_URLS override allowed_urls", env=NO_ENV)
    install_py_dep_per_model: bool = row(False, v.flag, "install the requirements of archives")
    environment_cache: Path | None = row(
        None,
        optional(v.path),
        "folder of installed requirements, shared by models and servers; unset: `modelserver/environments` in the "
        "user's cache",
    )
    wheel_directory: Path | None = row(
        None, optional(v.path), "only folder that the requirements of archives are installed from: no index is asked"
    )
    blacklist_env_vars: v.Pattern | None = row(
        None, optional(v.pattern), "whole names of environment variables that workers do not see"
    )
    decode_input_request: str = row("true", v.string, "TS_DECODE_INPUT_REQUEST of workers, as written")
    limit_max_image_pixels: bool = row(True, v.flag, "keep the pixel limit of PIL")
    ipex_enable: str = row("false", v.string, "TS_IPEX_ENABLE of workers, as written")
    ipex_gpu_enable: str = row("false", v.string, "TS_IPEX_GPU_ENABLE of workers, as written")
    cpu_launcher_enable: bool = row(False, v.flag, "start workers by torch.backends.xeon.run_cpu")
    cpu_launcher_args: str = row("", v.string, "arguments of the CPU launcher, separated by single blanks")
    debug: bool = row(False, v.flag, "workers are started by hand: the model log says how; no timeouts")
    ts_header_key_sequence_id: str = row(
        "ts_request_sequence_id", v.string, "header of the sequence id", env=("TS_HEADER_KEY_SEQUENCE_ID",)
    )
    ts_header_key_sequence_start: str = row(
        "ts_request_sequence_start", v.string, "header that starts a sequence", env=("TS_HEADER_KEY_SEQUENCE_START",)
    )
    ts_header_key_sequence_end: str = row(
        "ts_request_sequence_end", v.string, "header that ends a sequence", env=("TS_HEADER_KEY_SEQUENCE_END",)
    )

    # Metrics and logging
    metrics_mode: v.MetricsMode = row(v.MetricsMode.LOG, v.metrics_mode, "log, prometheus or legacy")
    metrics_config: Path = computed(_metrics_config, v.path, "metric definitions; unset: those of the package")
    model_metrics_auto_detect: bool = row(False, v.flag, "register unknown worker metrics on the fly")
    disable_system_metrics: bool = row(False, v.flag, "no periodic system metrics")
    metric_time_interval: int = row(60, v.integer(1), "period of system metrics", unit="s", env=NO_ENV)
    system_metrics_cmd: str = row("", v.string, "script and arguments that replace the collector", env=NO_ENV)
    metrics_histograms: bool = row(
        False, v.flag, "expose histograms of times and batch sizes, by model and version; not in mode log"
    )
    server_timing: bool = row(False, v.flag, "tell in the header Server-Timing where a prediction's time went")
    opentelemetry_traces: bool = row(
        False, v.flag, "send a trace of every prediction, as the OTEL_ variables of the environment say"
    )
    enable_openmetrics: bool = row(False, v.flag, "answer scrapes in the OpenMetrics format on request")
    async_logging: bool = row(False, v.flag, "no effect: logs are always written aside", env=NO_ENV)
    log_format: str = row("text", v.one_of("text", "json"), "form of log lines on stdout")
    log_to_files: bool = row(True, v.flag, "write log files")
    log_level: str | None = row(None, optional(v.log_level), "level of the server's own loggers")

    # Security, plugins and the rest
    disable_token_authorization: bool = row(False, v.flag, "no key file and no token check")
    token_expiration_min: float = row(
        60.0,
        v.minutes,
        "life of a token",
        unit="min",
        env=("TS_TOKEN_EXPIRATION_TIME_MIN", "TS_TOKEN_EXPIRATION_MIN"),
    )
    ping_without_token: bool = row(False, v.flag, "answer /ping without a token")
    ready_after_models: bool = row(
        False, v.flag, "/v2/health/ready and ServerReady say no until every model of the start has been ready once"
    )
    enable_model_api: bool = row(False, v.flag, "allow registering and deleting models over REST and gRPC")
    enable_workflow_api: bool = row(True, v.flag, "allow registering workflows")
    enable_envvars_config: bool = row(False, v.flag, "let TS_<KEY> variables override keys", env=NO_ENV)
    snapshot_keep: int = row(0, v.integer(0), "saved configurations to keep; 0: all")
    snapshot_store: str = row("filesystem", v.string, "where configurations are saved")
    snapshot_dynamodb_table: str = row("Snapshots", v.string, "table of the DynamoDB snapshot store")
    plugins: tuple[str, ...] = row((), v.csv, "plugins to load, `package.module:object`")
    plugins_disabled: tuple[str, ...] = row((), v.csv, "plugins to skip; `*`: all discovered ones")
    plugins_path: tuple[str, ...] = row((), v.search_path, "directories, wheels or globs of plugins", env=NO_ENV)
    cpp_log_config: Path | None = row(None, optional(v.path), "log configuration of native workers")

    # Without effect where there is no JVM
    vmargs: str = row("", v.string, "JVM options; a few -D names are honoured", env=NO_ENV, jvm=True)
    number_of_netty_threads: int = row(0, v.integer(), "front-end threads", jvm=True)
    netty_client_threads: int = row(0, v.integer(), "back-end threads", jvm=True)
    prefer_direct_buffer: bool = row(False, v.flag, "direct memory", jvm=True)
    io_ratio: int = row(50, v.integer(), "share of I/O in a thread's time", unit="%", env=NO_ENV, jvm=True)
    use_native_io: bool = row(True, v.flag, "native transports; false refuses unix: addresses", env=NO_ENV, jvm=True)

    # No keys: the command line, the environment, and where everything came from
    config_file: str | None = None  # as given; None without one
    forgotten_gpu_count: str = ""  # where a saved number_of_gpu=0 stands that is taken as unset
    snapshots: bool = True
    foreground: bool = False
    log_config: Path | None = None
    log_location: Path = Path("logs")  # of the log files
    metrics_location: Path = Path("logs")  # of the metric files
    temp_dir: Path = Path("/tmp")
    home: Path = field(default_factory=detected_home)  # contains `ts`
    python: Path = Path(sys.executable)
    system_properties: Mapping[str, str] = field(default_factory=dict)  # `-DNAME=VALUE` of vmargs
    properties: Mapping[str, str] = field(default_factory=dict)  # texts of all given keys, unknown ones too
    sources: Mapping[str, str] = field(default_factory=dict)  # field -> `file:line`, `environment TS_X`, ...
    notices: tuple[Notice, ...] = ()  # for the log, once it exists

    def source(self, name: str) -> str:
        """Where the value of a field came from; `default` if nothing set it."""
        return self.sources.get(name, "default")

    def usable_gpus(self, detected: int) -> int:
        """`number_of_gpu`, but never more than there are."""
        return detected if self.number_of_gpu is None else max(0, min(detected, self.number_of_gpu))

    @property
    def snapshot_location(self) -> Path:
        """Where configurations are saved; also the log directory that the start-up dump names."""
        return self._reported("log_location", "LOG_LOCATION")

    @property
    def reported_metrics_location(self) -> Path:
        """The metrics directory that the start-up dump names."""
        return self._reported("metrics_location", "METRICS_LOCATION")

    def _reported(self, name: str, system_property: str) -> Path:
        """A directory as `-D` options of vmargs, which do not reach the log files, would have it."""
        declared = self.system_properties.get(system_property)
        if declared and self.source(name) == "default":
            return Path(declared)
        place: Path = getattr(self, name)
        return place


@cache
def rows() -> Mapping[str, Row]:
    """Every key, by name, in the order of the table."""
    return rows_of(Settings)
