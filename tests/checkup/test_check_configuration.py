"""What is said about settings: every value that cannot be used, every line that the log of a start would warn with."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.checkup import differences
from modelserver.checkup.configuration import examine_settings, of_fault, of_notice
from modelserver.checkup.finding import Finding, Severity
from modelserver.settings.command_line import CommandLine, parse
from modelserver.settings.faults import Fault
from modelserver.settings.loading import examine
from modelserver.settings.model_options import ModelOptions, Requested, resolve
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings


def findings(directory: Path, text: str, *flags: str, **environ: str) -> list[str]:
    """The lines about a configuration file with this text."""
    (directory / "config.properties").write_text(text)
    settings, faults = examine(parse(flags), environ, directory)
    found = [*examine_settings(settings, faults), *differences.of_settings(settings, environ)]
    return [str(finding) for finding in found]


def test_every_value_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """Not the first alone, which is all that a start would tell."""
    text = "job_queue_size=many\ninference_address=8080\ngrpc_inference_port=70700\nmodels={\n"
    errors = [line for line in findings(tmp_path, text) if line.startswith("ERROR")]
    assert errors[:2] == [
        "ERROR config.properties:2: inference_address: Invalid binding address: 8080, expected "
        "http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH. Correct it.",
        "ERROR config.properties:3: grpc_inference_port: Invalid port number: 70700, expected a port from 0 to 65535. "
        "Correct it.",
    ]
    assert errors[2].startswith("ERROR config.properties:4: models: models is not valid JSON: ")
    assert errors[3].startswith('ERROR config.properties:1: job_queue_size: For input string: "many", expected ')
    assert len(errors) == 4


def test_faults_of_several_keys_together(tmp_path: Path) -> None:
    text = "inference_address=http://127.0.0.1:7070\nenable_grpc_ssl=true\ncertificate_file=gone.pem\n"
    errors = [line for line in findings(tmp_path, text) if line.startswith("ERROR")]
    assert [line.split(": ")[1] for line in errors] == ["grpc_inference_port", "certificate_file", "enable_grpc_ssl"]
    assert "NoSuchFileException: " in errors[1] and errors[1].startswith("ERROR config.properties:3: ")


def test_misspelt_and_unserved_keys_keep_their_line(tmp_path: Path) -> None:
    lines = findings(tmp_path, "# head\njob_queue_sise=1\nnumber_of_netty_threads=4\nplugins=a:b\nmetrics_format=x\n")
    assert "WARN config.properties:2: Unknown key job_queue_sise: did you mean job_queue_size?" in lines
    assert "INFO config.properties:3: number_of_netty_threads has no effect: there is no JVM." in lines
    assert any(line.startswith("WARN config.properties:4: plugins has no effect in this version. ") for line in lines)
    former = "metrics_format is a key of old releases and has no effect: did you mean metrics_mode?"
    assert f"WARN config.properties:5: {former}" in lines
    assert lines[0] == "INFO config.properties: this is the configuration file."


def test_a_former_key_beside_the_new_one_is_only_unknown(tmp_path: Path) -> None:
    lines = findings(tmp_path, "metrics_format=prometheus\nmetrics_mode=prometheus\n")
    assert "INFO config.properties:1: Unknown key metrics_format has no effect." in lines


def test_variables_of_the_environment(tmp_path: Path) -> None:
    lines = findings(tmp_path, "enable_envvars_config=true\n", TS_JOB_QUEUE_SIZE="x", TS_TOKEN_EXPIRATION_MIN="3")
    assert any(
        line.startswith('ERROR environment TS_JOB_QUEUE_SIZE: job_queue_size: For input string: "x"') for line in lines
    )
    assert "INFO environment TS_TOKEN_EXPIRATION_MIN: TorchServe does not read it, modelserver does." in lines


def test_without_a_file(tmp_path: Path) -> None:
    settings, faults = examine(CommandLine(), {}, tmp_path)
    first = next(iter(examine_settings(settings, faults)))
    assert str(first) == "INFO configuration: no configuration file is read: there is none."


def test_a_blank_that_opens_a_door(tmp_path: Path) -> None:
    """TorchServe takes `true ` for false."""
    lines = findings(tmp_path, "disable_token_authorization=true \nenable_model_api=true\njob_queue_size=3 \n")
    told = [line for line in lines if "TorchServe takes it for false" in line]
    assert len(told) == 1 and told[0].startswith('WARN config.properties:1: disable_token_authorization="true ": ')


@pytest.mark.parametrize(
    ("notice", "line"),
    [
        (Notice("WARN", "x", "text (key, f:1)", "f:1"), "WARN f:1: key: text."),
        (Notice("INFO", "x", "text (f:1)", "f:1"), "INFO f:1: text."),
        (Notice("ERROR", "x", "text (aside)"), "WARN there: text (aside)."),
        (Notice("WARN", "x", "text (aside)", "f:1"), "WARN f:1: text (aside)."),
    ],
)
def test_the_place_of_a_notice_moves_to_the_front(notice: Notice, line: str) -> None:
    assert str(of_notice(notice, "there")) == line


def test_a_fault_without_a_form() -> None:
    fault = Fault("home", "environment X", "Model server home not exist: /gone")
    assert of_fault(fault) == Finding(
        Severity.ERROR, "environment X", "home: Model server home not exist: /gone", "Correct it."
    )


def options(yaml: dict[str, object], settings: Settings) -> ModelOptions:
    resolved, _ = resolve(
        "m", "1.0", Requested(), yaml, settings, manifest_runtime="python", gpus=0, cpus=1, at_startup=True
    )
    return resolved


def test_timeouts_that_the_archive_does_not_state() -> None:
    """TorchServe takes 120 s for them, whatever the server's configuration says."""
    settings = Settings(default_response_timeout=55)
    yaml: dict[str, object] = {"batchSize": 2}
    (found,) = differences.of_model("m.mar", yaml, options(yaml, settings))
    assert str(found).startswith("INFO m.mar: responseTimeout is 55 s; TorchServe takes 120 s because ")
    assert not list(differences.of_model("m.mar", {}, options({}, settings)))
    yaml = {"responseTimeout": 9}
    assert not list(differences.of_model("m.mar", yaml, options(yaml, settings)))


def test_a_delay_of_0() -> None:
    yaml: dict[str, object] = {"maxBatchDelay": 0}
    (found,) = differences.of_model("m.mar", yaml, options(yaml, Settings()))
    assert "maxBatchDelay: 0 means that no batch waits" in found.what


def test_a_fault_of_a_value_that_nobody_has_stated(tmp_path: Path) -> None:
    """A default may be in the way of what is stated: then there is no line to point at."""
    lines = findings(tmp_path, "grpc_inference_port=7071\n")
    assert any(line.startswith("ERROR configuration: grpc_management_port: 127.0.0.1:7071 takes ") for line in lines)
