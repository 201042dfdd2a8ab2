"""Environment variables that are no settings: read at all times, by the command, the server or its workers."""

from __future__ import annotations

from typing import Final

VARIABLES: Final = {
    "TS_CONFIG_FILE": "configuration file; beats `--ts-config`; must exist",
    "TS_OPEN_INFERENCE_PROTOCOL": "`oip`: Open Inference on; any other value: off; beats `ts_open_inference_protocol`",
    "TS_MODEL_SERVER_HOME": "directory that contains the `ts` package; must exist",
    "LOG_LOCATION": "directory of `access_log.log`, `ts_log.log` and `model_log.log`, and of `config/` with the saved "
    "configurations; default `logs` in the current directory",
    "METRICS_LOCATION": "directory of `ts_metrics.log` and `model_metrics.log`; default `logs`",
    "TEMP": "directory for unpacked archives and sockets, default `/tmp`; must exist",
    "TMPDIR": "directory of the pid file, `.model_server.pid`; without it `TEMP`, then `TMP`, then `/tmp`",
    "PATH": "passed to workers; `python3` of archives that name this runtime is looked up in it",
    "PYTHONPATH": "passed to workers, with the model's directory added",
    "OMP_NUM_THREADS": "threads of a worker's torch; without it the cores are divided among the workers of a model",
    "CUDA_VISIBLE_DEVICES": "NVIDIA devices that count",
    "HIP_VISIBLE_DEVICES": "AMD devices that count",
    "XPU_VISIBLE_DEVICES": "Intel devices that count",
    "AWS_ACCESS_KEY_ID": "with the next two: signs the downloads of registrations with `s3_sse_kms=true`",
    "AWS_SECRET_ACCESS_KEY": "see above",
    "AWS_DEFAULT_REGION": "see above",
    "SM_TELEMETRY_LOG": "any value: errors are counted on the logger `TELEMETRY_METRICS`, too",
    "JAVA_HOME": "ignored",
    "TS_DECODE_INPUT_REQUEST": "set for workers from `decode_input_request`",
    "TS_IPEX_ENABLE": "set for workers from `ipex_enable`",
    "TS_IPEX_GPU_ENABLE": "set for workers from `ipex_gpu_enable`",
    "TS_REQUEST_SEQUENCE_ID": "set for workers from `ts_header_key_sequence_id`",
    "TS_REQUEST_SEQUENCE_START": "set for workers from `ts_header_key_sequence_start`",
    "TS_REQUEST_SEQUENCE_END": "set for workers from `ts_header_key_sequence_end`",
    "TS_BENCHMARK": "read by handlers",
    "ENABLE_TORCH_PROFILER": "read by handlers",
}
