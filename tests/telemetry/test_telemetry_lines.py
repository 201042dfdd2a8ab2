"""Every line of the default configuration, byte by byte, in every sink."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from telemetry_served import DATE, WORKER, Hands, Served, prediction_time

from modelserver.telemetry.records import BEGUN, ENDED
from modelserver.wire.frames import Metric

HOST = "|#Level:Host|#hostname:node1,timestamp:1795176000"
MODEL = "|#model_name:probe,model_version:default|#hostname:node1,timestamp:1795176000"
FILES = ("ts_log", "access_log", "model_log", "model_metrics", "ts_metrics")


def test_files_exist_before_the_first_event(tmp_path: Path) -> None:
    with Served(tmp_path):
        assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == sorted(f"{name}.log" for name in FILES)


def test_one_prediction_leaves_these_lines(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.batch("id-1", metrics=[prediction_time()])
        served.predict("id-1")
        sent, replied, done = f"{DATE},125", f"{DATE},187", f"{DATE},250"
        prediction = f"PredictionTime.ms:0.35|#ModelName:probe,Level:Model|#hostname:node1,requestID:id-1,{HOST[-20:]}"
        access = '/127.0.0.1:43288 "POST /predictions/probe HTTP/1.1" 200 250'
        assert served.stdout() == [
            f"{sent} [INFO ] {WORKER} org.pytorch.serve.wlm.WorkerThread - Looping backend response at: 1795176000125",
            f"{sent} [INFO ] {WORKER}-stdout MODEL_LOG - Backend received inference at: 1795176000",
            f"{replied} [INFO ] {WORKER}-stdout MODEL_METRICS - {prediction}",
            f"{DATE},000 [INFO ] listener TS_METRICS - ts_inference_requests_total.Count:1.0{MODEL}",
            f"{replied} [INFO ] {WORKER} org.pytorch.serve.wlm.BatchAggregator - Sending response for jobId id-1",
            f"{done} [INFO ] {WORKER} ACCESS_LOG - {access}",
            f"{done} [INFO ] {WORKER} TS_METRICS - Requests2XX.Count:1.0{HOST}",
            f"{replied} [INFO ] {WORKER} TS_METRICS - ts_inference_latency_microseconds.Microseconds:187500.0{MODEL}",
            f"{replied} [INFO ] {WORKER} TS_METRICS - ts_queue_latency_microseconds.Microseconds:125000.0{MODEL}",
            f"{replied} [INFO ] {WORKER} TS_METRICS - QueueTime.Milliseconds:125.0{HOST}",
            f"{done} [INFO ] {WORKER} org.pytorch.serve.wlm.WorkerThread - Backend response time: 62",
            f"{done} [INFO ] {WORKER} TS_METRICS - WorkerThreadTime.Milliseconds:62.0{HOST}",
        ]
        assert served.file("ts_log") == served.stdout()
        assert served.file("access_log") == [f"{done} - {access}"]
        assert served.file("model_metrics") == [f"{replied} - {prediction}"]
        assert served.file("model_log") == [served.stdout()[1]]
        assert served.file("ts_metrics") == [
            f"{DATE},000 - ts_inference_requests_total.Count:1.0{MODEL}",
            f"{done} - Requests2XX.Count:1.0{HOST}",
            f"{replied} - ts_inference_latency_microseconds.Microseconds:187500.0{MODEL}",
            f"{replied} - ts_queue_latency_microseconds.Microseconds:125000.0{MODEL}",
            f"{replied} - QueueTime.Milliseconds:125.0{HOST}",
            f"{done} - WorkerThreadTime.Milliseconds:62.0{HOST}",
        ]


def test_batch_of_two_ends_after_both_requests(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.batch("a", "b", metrics=[prediction_time("a,b")])
        served.predict("a")
        served.predict("b")
        assert served.file("model_metrics")[0].endswith("requestID:a,b,timestamp:1795176000")
        assert [line.split(" - ")[1].split(".")[0] for line in served.file("ts_metrics")] == [
            *("ts_inference_requests_total", "Requests2XX"),
            *("ts_inference_latency_microseconds", "ts_queue_latency_microseconds", "QueueTime"),
            *("ts_inference_requests_total", "Requests2XX"),
            *("ts_inference_latency_microseconds", "ts_queue_latency_microseconds", "QueueTime"),
            "WorkerThreadTime",
        ]


def test_batches_of_several_workers_keep_their_times_apart(tmp_path: Path) -> None:
    other = "W-9001-probe_1.0"
    with Served(tmp_path) as served:
        for worker, request_id, sent, replied, done in (
            (WORKER, "a", 0.125, 0.1875, 0.25),
            (other, "b", 0.125, 0.1875, 0.25),
            (WORKER, "c", 0.125, 0.25, 0.25),  # sent with "a", answered later
            (WORKER, "d", 2.0, 2.0625, 2.125),  # takes as long as "a"
        ):
            served.hands.monotonic = done
            served.telemetry.batch_done(worker, "probe", [request_id], sent, replied, [], True)
        for request_id in ("a", "c", "b", "d"):
            served.predict(request_id)
        lines = [line.replace("org.pytorch.serve.", "") for line in served.stdout()]
        begin = [line for line in lines if "wlm.WorkerThread - Loop" in line]
        end = [line for line in lines if "wlm.WorkerThread - Back" in line]
        assert begin == [
            f"{DATE},125 [INFO ] {WORKER} wlm.WorkerThread - Looping backend response at: 1795176000125",
            f"{DATE},125 [INFO ] {other} wlm.WorkerThread - Looping backend response at: 1795176000125",
            f"{DATE},125 [INFO ] {WORKER} wlm.WorkerThread - Looping backend response at: 1795176000125",
            f"2026-11-20T12:00:02,000 [INFO ] {WORKER} wlm.WorkerThread - Looping backend response at: 1795176002000",
        ]
        assert end == [
            f"{DATE},250 [INFO ] {WORKER} wlm.WorkerThread - Backend response time: 62",
            f"{DATE},250 [INFO ] {WORKER} wlm.WorkerThread - Backend response time: 125",
            f"{DATE},250 [INFO ] {other} wlm.WorkerThread - Backend response time: 62",
            f"2026-11-20T12:00:02,125 [INFO ] {WORKER} wlm.WorkerThread - Backend response time: 62",
        ]
        assert [line.partition(" - ")[2][:28] for line in served.file("ts_metrics") if "WorkerThread" in line] == [
            "WorkerThreadTime.Millisecond"
        ] * 4
        assert [line.rpartition(" ")[2] for line in served.file("model_log")] == ["1795176000"] * 3 + ["1795176002"]


def test_last_lines_of_a_batch_do_not_wait_for_ever(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.batch("never answered")
        assert any("Backend response time: 62" in line for line in served.stdout())


@pytest.mark.parametrize(("steps", "order"), [(("a", "a", "a"), "LBLBLB"), (("ab", "abc", "a"), "LBLLBB")])
def test_no_step_of_a_request_loses_its_last_lines(tmp_path: Path, steps: Sequence[str], order: str) -> None:
    """With continuous batching a request is in one batch after the other; they wait for requests that are over."""
    with Served(tmp_path) as served:
        for names in steps:
            served.batch(*names)
        for request_id in "abc":
            served.predict(request_id)
        told = [line.partition("wlm.WorkerThread - ")[2] for line in served.stdout()]
        assert "".join({"Looping": "L", "Backend": "B"}.get(text[:7], "") for text in told) == order


def test_batch_that_died_with_its_worker_leaves_nothing(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.batch("id-1", replied=0.0)
        assert served.stdout() == []


def test_batch_that_failed_in_the_handler_has_its_lines(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.batch_done(WORKER, "probe", ["a", "a"], 0.125, 0.1875, [], False)
        served.predict("a", status=503, ok=False)
        lines = served.stdout()
        assert [line.rpartition(" - ")[2][:22] for line in (lines[0], *lines[-2:])] == [
            "Looping backend respon",
            "Backend response time:",
            "WorkerThreadTime.Milli",
        ]


def test_failed_prediction_counts_as_request_but_has_no_latency(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.predict(status=503, ok=False)
        names = [line.split(" - ")[1].split(".")[0] for line in served.file("ts_metrics")]
        assert names == ["ts_inference_requests_total", "Requests5XX"]


def test_client_that_left_has_no_access_line(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.predict(status=0, ok=False)
        assert served.file("access_log") == []
        assert len(served.file("ts_metrics")) == 1
        assert "ts_inference_requests_total" in served.file("ts_metrics")[0]


@pytest.mark.parametrize(
    ("status", "metric"),
    [(200, "Requests2XX"), (299, "Requests2XX"), (404, "Requests4XX"), (500, "Requests5XX"), (599, "Requests5XX")],
)
def test_status_is_counted_in_its_class(tmp_path: Path, status: int, metric: str) -> None:
    with Served(tmp_path) as served:
        served.get(status=status)
        assert served.file("ts_metrics") == [f"{DATE},062 - {metric}.Count:1.0{HOST}"]


@pytest.mark.parametrize("status", [101, 302])
def test_informational_and_redirects_are_counted_nowhere(tmp_path: Path, status: int) -> None:
    with Served(tmp_path) as served:
        served.get(status=status)
        assert served.file("ts_metrics") == []
        assert len(served.file("access_log")) == 1


def test_other_requests_are_logged_without_a_worker(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.get("/metrics?name%5B%5D=X")
        line = '/127.0.0.1:41008 "GET /metrics?name%5B%5D=X HTTP/1.1" 200 62'
        assert served.file("access_log") == [f"{DATE},062 - {line}"]
        assert served.stdout()[0] == f"{DATE},062 [INFO ] listener ACCESS_LOG - {line}"


def test_grpc_calls_have_access_lines_with_their_own_status(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        target = "org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
        for status in (0, 14):
            served.telemetry.request_done("/127.0.0.1:5", "gRPC", target, "HTTP/2.0", status, 0.0, 0.03125)
        assert served.file("access_log") == [
            f'{DATE},031 - /127.0.0.1:5 "gRPC {target} HTTP/2.0" {status} 31' for status in (0, 14)
        ]
        assert served.file("ts_metrics") == []


def test_grpc_predictions_update_everything_but_the_status_counters(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.request_done(
            "/127.0.0.1:5", "gRPC", "x/Predictions", "HTTP/2.0", 0, 0.0, 0.25,
            WORKER, "probe", "default", "id-1", 0.125, 0.1875, True,
        )  # fmt: skip
        assert [line.split(" - ")[1].split(".")[0] for line in served.file("ts_metrics")] == [
            *("ts_inference_requests_total", "ts_inference_latency_microseconds"),
            *("ts_queue_latency_microseconds", "QueueTime"),
        ]


def test_printed_lines(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        for stream, line in (("stdout", "x"), ("stderr", "y"), ("stdout", ""), ("stdout", " [METRICS]no metric %s ü")):
            served.telemetry.printed(WORKER, stream, line)
        lines = [
            f"{DATE},000 [INFO ] {WORKER}-stdout MODEL_LOG - x",
            f"{DATE},000 [WARN ] {WORKER}-stderr MODEL_LOG - y",
            f"{DATE},000 [INFO ] {WORKER}-stdout MODEL_LOG - ",
            f"{DATE},000 [INFO ] {WORKER}-stdout MODEL_LOG -  [METRICS]no metric %s ü",
        ]
        assert served.file("model_log") == lines
        assert served.stdout() == lines
        assert served.file("ts_log") == lines


@pytest.mark.parametrize(
    ("level", "shown"),
    [("DEBUG", "DEBUG"), ("INFO", "INFO "), ("WARN", "WARN "), ("ERROR", "ERROR"), ("FATAL", "FATAL")],
)
def test_server_lines_appear_once(tmp_path: Path, level: str, shown: str) -> None:
    with Served(tmp_path) as served:
        served.telemetry.log(level, "wlm.WorkerThread", "State change null -> WORKER_STARTED", WORKER)
        text = "org.pytorch.serve.wlm.WorkerThread - State change null -> WORKER_STARTED"
        assert served.stdout() == [f"{DATE},000 [{shown}] {WORKER} {text}"]
        assert served.file("ts_log") == served.stdout()
        assert served.file("model_log") == []


def test_message_with_line_feeds_is_kept_as_it_is(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.log("INFO", "ModelServer", "\nTorchserve version: 0.12.0\nTS Home: /x")
        assert served.stdout() == [
            f"{DATE},000 [INFO ] main org.pytorch.serve.ModelServer - ",
            "Torchserve version: 0.12.0",
            "TS Home: /x",
        ]


def test_announcement_is_bare_and_on_stdout_alone(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.log("INFO", "ModelServer", "before")
        served.telemetry.announce("Model server started.")
        served.telemetry.log("INFO", "ModelServer", "after")
        assert [line.rpartition(" - ")[2] for line in served.stdout()] == ["before", "Model server started.", "after"]
        assert [line.rpartition(" - ")[2] for line in served.file("ts_log")] == ["before", "after"]


def test_thread_names_have_neither_blanks_nor_colons(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        worker = "W-9000-my model:x_1.0"
        served.telemetry.printed(worker, "stdout", "x")
        served.telemetry.worker_loaded(worker, 3419.7)
        served.telemetry.request_done(
            "/127.0.0.1:5", "POST", "/predictions/m", "HTTP/1.1", 200, 0.0, 0.5,
            worker, "my model:x", "1.0", "id", 0.25, 0.375, True,
        )  # fmt: skip
        for line in served.stdout():
            assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} \[[A-Z ]{5}\] [^ :]+ \S+ - ", line)


def test_a_response_in_pieces_is_told_when_it_begins_and_measured_when_it_ends(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        target = ("/127.0.0.1:5", "POST", "/predictions/probe", "HTTP/1.1")
        served.telemetry.request_done(*target, 200, 0.0, 0.0625, WORKER, "probe", "default", "id-1", 0.03125, BEGUN)
        assert served.file("access_log") == [f'{DATE},062 - /127.0.0.1:5 "POST /predictions/probe HTTP/1.1" 200 62']
        names = [line.split(" - ")[1].split(".")[0] for line in served.file("ts_metrics")]
        assert names == ["ts_inference_requests_total", "Requests2XX"]
        served.batch("id-1")
        served.telemetry.request_done(
            *target, ENDED, 0.0, 0.25,
            WORKER, "probe", "default", "id-1", 0.03125, 0.1875, True,
        )  # fmt: skip
        assert len(served.file("access_log")) == 1
        assert [line.split(" - ")[1].split(".")[0] for line in served.file("ts_metrics")] == [
            *names,
            *("ts_inference_latency_microseconds", "ts_queue_latency_microseconds", "QueueTime", "WorkerThreadTime"),
        ]


def test_worker_load_time(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.worker_loaded(WORKER, 3419.7)
        messages = [f"WorkerLoadTime.Milliseconds:3419.0|#WorkerName:{WORKER},Level:Host|#hostname:node1"]
        messages += ["WorkerThreadTime.Milliseconds:0.0|#Level:Host|#hostname:node1"]
        assert served.stdout() == [
            f"{DATE},000 [INFO ] {WORKER} TS_METRICS - {message},timestamp:1795176000" for message in messages
        ]


def test_known_parsers_find_value_and_time(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.predict()
        for line in served.stdout():
            if " TS_METRICS - " in line:
                fields = line.split("|")
                assert float(fields[0].split(":")[3]) >= 0
                assert fields[1].startswith("#")
                assert fields[2].split(",")[-1] == "timestamp:1795176000"


def test_text_of_clients_and_models_is_never_taken_for_a_template(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.request_done(
            "/127.0.0.1:5", "POST", "/predictions/100%25?%s=%(id)s", "HTTP/1.1", 200, 0.0, 0.5,
            "W-9000-100%_1.0", "100%", "%(id)s", "%s", 0.25, 0.375, True,
        )  # fmt: skip
        assert '"POST /predictions/100%25?%s=%(id)s HTTP/1.1" 200 500' in served.file("access_log")[0]
        assert "|#model_name:100%,model_version:%(id)s|#" in served.file("ts_metrics")[0]
        assert "jobId %s" in served.stdout()[1]


def test_text_that_is_no_unicode_is_written_escaped(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.printed(WORKER, "stdout", "bad \udcff byte")
        assert served.stdout()[0].endswith("MODEL_LOG - bad \\udcff byte")


def test_label_value_with_a_line_feed_stays_in_its_line(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        update = Metric("PredictionTime", "ms", 1.0, [("ModelName", "a\nb"), ("Level", "Model")], "GAUGE", "")
        served.telemetry.worker_metrics(WORKER, "probe", [update])
        assert "ModelName:a\\nb,Level:Model|#hostname:node1,requestID:null," in served.file("model_metrics")[0]


@pytest.mark.parametrize("level", ["info", "warn", "error"])
def test_log_level_raises_the_server_lines_alone(tmp_path: Path, level: str) -> None:
    with Served(tmp_path, log_level=level) as served:
        for each in ("DEBUG", "INFO", "WARN", "ERROR"):
            served.telemetry.log(each, "ModelServer", each)
        served.batch("id-1", metrics=[prediction_time()])
        served.predict("id-1")
        text = "\n".join(served.stdout())
        expected = {"info": {"INFO", "WARN", "ERROR"}, "warn": {"WARN", "ERROR"}, "error": {"ERROR"}}[level]
        assert set(re.findall(r"\[(\w+) *\] \S+ org.pytorch.serve.ModelServer", text)) == expected
        assert ("Sending response for jobId" in text) == (level == "info")
        assert ("Backend response time" in text) == (level == "info")
        for logger in (" ACCESS_LOG ", " MODEL_LOG ", " TS_METRICS ", " MODEL_METRICS "):
            assert logger in text


def test_debug_lines_of_requests_only_where_asked_for(tmp_path: Path) -> None:
    text = (
        "DEBUG] W-9000-probe_1.0 org.pytorch.serve.job.RestJob - Waiting time ns: 125000000, Backend time ns: 62500000"
    )
    with Served(tmp_path / "default") as served:
        served.predict()
        assert text not in "\n".join(served.stdout())
    with Served(tmp_path / "debug", log_level="debug") as served:
        served.predict()
        assert text in "\n".join(served.stdout())


def test_setting_the_wall_clock_moves_later_lines(tmp_path: Path) -> None:
    hands = Hands()
    with Served(tmp_path, hands=hands) as served:
        served.telemetry.log("INFO", "ModelServer", "before")
        served.telemetry.flush()
        hands.set = 3600.0
        served.telemetry.flush()
        served.telemetry.log("INFO", "ModelServer", "after")
        assert [line[:23] for line in served.stdout()] == [f"{DATE},000", "2026-11-20T13:00:00,000"]
