"""What modelserver does otherwise than TorchServe 0.12 by decision: one row per difference, each proved by a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One row: what each server does, and what to do about it where something has to be done."""

    torchserve: str
    modelserver: str
    advice: str = ""
    always: bool = True  # otherwise it is a matter of luck what TorchServe does


BAD_REQUEST = "400 `BadRequestException`"
TOPICS: dict[str, dict[str, Difference]] = {
    "Connections": {
        "connection close": Difference(
            "answers `Connection: close` and HTTP/1.0 requests with `connection: keep-alive` and keeps the "
            "connection open",
            "does what the client asked for; HTTP/1.0 connections are kept only with `Connection: keep-alive` (as "
            "`ab -k` sends it)",
        ),
        "streams for http 1.0": Difference(
            "sends chunks to HTTP/1.0 clients, which do not know them",
            "sends them the pieces as they are and ends the connection after the last one",
        ),
        "pipelining": Difference(
            "sends no `x-request-id` with the second of two pipelined answers",
            "sends one with every answer",
        ),
        "orderly close": Difference(
            "resets the connection after an error: a slow client may lose the body",
            "closes it in order, after the body",
        ),
        "long lines and headers": Difference(
            "refuses request lines over 4,096 and headers over 8,192 bytes with 400",
            "takes 64 KiB of each",
        ),
        "absolute targets": Difference(
            "404 for a target with scheme and host (`GET http://host/ping`), 500 for one without a path (`OPTIONS *`)",
            "serves the path of the first; the second is `/`",
        ),
        "line ends": Difference(
            "takes lines of heads and of chunks that end without CR",
            f"{BAD_REQUEST}: a proxy that sees other requests than the server would let one client speak for another",
            "Write lines of hand-made requests (`printf` into `nc`) with CR and LF.",
        ),
        "body too large": Difference(
            "answers a body over `max_request_size` with a bare 413",
            "answers 413 with the JSON of any error, an `x-request-id`, and a line in the access log",
        ),
    },
    "Requests": {
        "header names": Difference(
            "`context.get_request_header` finds a header by the client's spelling alone, so a proxy that "
            "lower-cases names breaks handlers",
            "finds it in any spelling; handlers that list the headers still see the client's",
        ),
        "bad escapes": Difference(
            "403 `IllegalArgumentException` for a bad percent escape in the path or the query",
            BAD_REQUEST,
            "Only clients that look for 403 notice.",
        ),
        "unreadable bodies": Difference(
            "500 `ErrorDataDecoderException` for a bad escape in a form, or a field or part without a name",
            BAD_REQUEST,
            "Clients that retry 500 stop doing so for these.",
        ),
        "multipart bodies": Difference(
            "hands the handler no part at all, without an error, of a multipart body that is cut off or has a "
            "preamble; 500 for files sent as base64; takes `Multipart/Form-Data`, written so, "
            "for one raw body, lines that end without CR for lines, and parts of parts for parts",
            f"{BAD_REQUEST} for a body that is cut off; for the rest, as RFC 7578 has it",
            "Write lines of hand-made multipart bodies with CR and LF.",
        ),
        "empty fields of a form": Difference(
            "500 `ErrorDataDecoderException` for a form with two `&` in a row, or one at an end",
            "nothing is there, and nothing is made of it",
        ),
        "targets of forms": Difference(
            "hands `target`, the field of a form that names the class to be explained, to Captum as bytes, which fails",
            "hands it over as the number that it is",
        ),
        "last field of a form": Difference(
            "drops the last field of a form if it has no `=` (`curl -d text` sends such a form)",
            "hands it to the handler with an empty value, as in any other place of the form",
        ),
    },
    "Answers": {
        "framing": Difference(
            "sends a `Transfer-Encoding` that a handler has set, though the body is not encoded so",
            "drops it, as it drops `Content-Length` and `Connection`",
        ),
        "impossible headers": Difference(
            "500 `Worker died.`, and a restart, for a response header that HTTP cannot carry, as one with a line end",
            "503 `Prediction failed`; the worker goes on",
        ),
        "impossible statuses": Difference(
            "sends a status below 100 or above 599 as the handler has set it",
            "sends 500 with the handler's body",
        ),
        "client timeout": Difference(
            "never answers a request that has waited longer than the model's `clientTimeoutInMills`; the client hangs",
            "answers 408 `RequestTimeoutException` when the time is over, and does not begin the request any more",
        ),
        "signal 9": Difference(
            "answers 500 or 507 when a worker was killed by signal 9, as luck will have it",
            "answers 507",
            always=False,
        ),
    },
    "Registering and describing models": {
        "failed registration": Difference(
            "keeps a model, without workers, whose synchronous registration has failed by a `RuntimeError`, "
            "`MemoryError` or CUDA error in `initialize`, for want of GPUs, or in `pip install`; the next attempt is a "
            "conflict",
            "keeps nothing: correct the archive and register again",
            "Scripts that unregister after a failure get 404 for it.",
            always=False,
        ),
        "json registration": Difference(
            "gives a model registered by JSON a `max_batch_delay` of -10000 ms; 500 for an empty JSON body",
            "the default, 100 ms; an empty body leaves the query",
        ),
        "json errors": Difference(
            "500 `JsonSyntaxException` for JSON that is malformed or of the wrong types; takes names and texts without "
            "quotes, and comments, for JSON",
            BAD_REQUEST,
        ),
        "urls of no file": Difference(
            "500, or a model of nonsense, for `url=.` and `url=/`",
            "404 `ModelNotFoundException`",
        ),
        "names with slashes": Difference(
            "registers a model whose name has a slash; no request can reach it",
            BAD_REQUEST,
            "Choose another `model_name`.",
        ),
        "empty handler": Difference(
            "takes `handler=` for a handler without a name, so that no worker can load",
            "takes it for no parameter: the archive's handler counts",
        ),
        "signed downloads": Difference(
            "500 `NullPointerException` for `s3_sse_kms=true` without the AWS variables",
            "400 `DownloadArchiveException`",
        ),
        "useless downloads": Difference(
            "leaves a downloaded archive in the model store when its registration fails, where it blocks the next "
            "attempt",
            "deletes it",
        ),
        "redirected downloads": Difference(
            "follows the redirects of a download wherever they lead",
            "every URL on the way must match `allowed_urls`; never from https to http",
            "Allow the hosts that yours redirects to.",
        ),
        "slow downloads": Difference(
            "waits without limit for a server that a model is to be downloaded from",
            "400 `DownloadArchiveException` after `download_timeout` (60 s) without progress",
        ),
        "start-up downloads": Difference(
            "cannot load a start-up model from a URL at the second start: its file is in the store already",
            "opens that file",
            "Delete it to have it downloaded again.",
        ),
        "broken manifests": Difference(
            "500 `NullPointerException` for a manifest that is blank or whose `model` is null",
            "400 `InvalidModelException`",
        ),
        "extracted leftovers": Difference(
            "leaves what it has unpacked in the temporary directory when an archive is refused",
            "deletes it",
        ),
        "native workers": Difference(
            "500 for an archive of the runtime `LSP`, after trying to start its program",
            "400 `ModelException`, `Unsupported runtime: LSP`",
        ),
        "model timeouts": Difference(
            "sets both timeouts to 120 s if the archive has a configuration file, whatever that says",
            "a timeout that the file does not name comes from the call, then from the server's configuration",
            "If you relied on 120 s: say so in the file.",
        ),
        "set-default only": Difference(
            "describes, or unregisters, the default version for `GET` or `DELETE` of "
            "`/models/{model}/{version}/set-default`",
            "405; nothing happens",
        ),
        "patience of describe": Difference(
            "waits without limit for a handler that is to describe itself (`customized=true`)",
            "500 after the model's `responseTimeout`; the worker is restarted",
        ),
        "api description": Difference(
            "gives several operations of its OpenAPI documents the same `operationId`, and leaves out `customized`",
            "gives each its own (`v1_predictions`, `v2_predictions`), so that the documents are valid; all other "
            "ids are TorchServe's",
            "Generated clients: those two methods get their own names.",
        ),
    },
    "Scaling and removing": {
        "negative minimum": Difference(
            "500 for `min_worker=-1`, and stops the workers and stores -1",
            "500, and nothing changes",
        ),
        "emptied models": Difference(
            "`min_worker=0` with a `max_worker` above it removes the workers from describe and leaves their "
            "processes running",
            "ends the processes",
        ),
        "scaling down": Difference(
            "kills removed workers at once: what they ran fails, or is run again by another worker",
            "lets them finish their batch, `drain_timeout` (10 s) at most; nothing is run twice",
            "`drain_timeout=0` gives the old haste.",
            always=False,
        ),
        "unregistering": Difference(
            "never answers requests that run or wait when their model is unregistered",
            "answers them, within `drain_timeout`; what is left then gets 500 or 503. The name is free at once",
        ),
        "stopping": Difference(
            "cuts all connections when it is stopped",
            "refuses new work, finishes what it has accepted, within `drain_timeout`, and leaves no file behind",
            "Give the supervisor more patience than `drain_timeout`.",
            always=False,
        ),
        "launcher and scaling": Difference(
            "with `cpu_launcher_enable` a synchronous call to scale is answered before the workers have loaded",
            "it is answered when they serve",
            always=False,
        ),
    },
    "Queues and batches": {
        "no delay": Difference(
            "`max_batch_delay=0` limits batches to two",
            "takes what waits, up to `batchSize`, and waits for nothing",
        ),
        "one kind": Difference(
            "mixes predictions and explanations in one batch; the first decides for all",
            "one batch is of one kind",
        ),
        "tickets": Difference(
            "counts job tickets wrong after a worker was restarted",
            "one ticket per idle worker, always",
            always=False,
        ),
        "vanished clients": Difference(
            "runs queued requests of clients that have hung up",
            "drops them from the queue",
        ),
        "hopeless models": Difference(
            "goes on queueing requests for a model none of whose workers will ever be restarted; clients hang",
            "503 at once, for those that wait too",
        ),
    },
    "Stateful models": {
        "sequence header names": Difference(
            "finds the headers of sequences in exactly one spelling", "finds them in any, as all headers"
        ),
        "renamed sequence headers": Difference(
            "does not tell workers of `ts_header_key_sequence_id` and its like: handlers look for the default names",
            "tells them",
        ),
        "sequence stalls": Difference(
            "serves no more than `batchSize` sequences of a worker at a time: requests of others wait until one of "
            "these is idle for `sequenceMaxIdleMSec`",
            "a request never waits for sequences that have none",
        ),
        "sequences without idle limit": Difference(
            "without `sequenceMaxIdleMSec` every request to a stateful model is a 500, `NullPointerException`",
            "serves them, and warns that sequences do not end by being idle",
        ),
        "sequence crash": Difference(
            "a worker of a stateful model that dies is never started again",
            "its sequences are closed, what waits in them is refused with 503, and it is started again as any other",
        ),
        "sequence queue": Difference(
            "`jobQueueStatus` of a stateful model does not count requests that wait in sequences", "counts them"
        ),
        "sequence end": Difference(
            "ends a sequence at its handler's word (the end header in its answer) only with continuous batching",
            "does so for every stateful model",
        ),
    },
    "Workers": {
        "restart at once": Difference(
            "waits a second before the first restart of a worker",
            "restarts a worker that had loaded at once, then after 1, 1, 2, 3, 5... s",
        ),
        "unread requests": Difference(
            "fails a request sent to a worker that had died unnoticed",
            "gives it to the next worker: the dead one has never read it",
        ),
        "asynchronous errors": Difference(
            "with `asyncCommunication` gives the error of one request to all that its worker has, and writes it to "
            "idle connections as well",
            "fails only the request that failed",
        ),
        "asynchronous crashes": Difference(
            "with `asyncCommunication` answers nothing that a worker had when it died, and shows its slot as "
            "`UNLOADING` for ever",
            "answers 500 `Worker died.`, restarts the worker as any other",
        ),
        "asynchronous timeouts": Difference(
            "with `asyncCommunication` lets a request take any time, whatever `responseTimeout` is",
            "fails a request that hears nothing for `responseTimeout`; restarts the worker if nobody hears anything",
            "Set `responseTimeout` to the longest silence that a request may have.",
        ),
        "asynchronous batches": Difference(
            "with `asyncCommunication` and a batch size above 1, leaves requests unanswered",
            "calls the handler once for each batch, any number of batches at a time",
        ),
        "continuous describe": Difference(
            "with continuous batching, `customized=true` waits for ever while the handler streams, as does the model",
            "asks the handler between two steps",
        ),
        "continuous end at once": Difference(
            "with continuous batching, never answers a request whose stopping criterion is true after the first step",
            "answers it like any other",
        ),
        "first gpu": Difference(
            "gives GPU 1 to the first worker of a machine with several",
            "goes round from GPU 0",
            always=False,
        ),
    },
    "Metrics": {
        "broken definitions": Difference(
            "serves no metric, and no model, if `metrics_config` cannot be read, lacks `model_metrics` or has a key "
            "too many; an entry without `dimensions` ends the start",
            "takes what cannot be read from the default definitions and logs it; unknown keys are a warning",
        ),
        "shifted labels": Difference(
            "in log mode writes a metric whose definition has the wrong number of dimensions with its values shifted",
            "drops it with the error that prometheus mode has",
        ),
        "redirects": Difference(
            "counts responses with status 1xx and 3xx, which a handler may set, in `Requests5XX`",
            "counts them nowhere",
        ),
        "load times": Difference(
            "measures `WorkerLoadTime` of a restarted worker from the first start of its slot on",
            "from the start of the process that has loaded",
        ),
        "grpc latencies": Difference(
            "leaves gRPC predictions out of `ts_inference_latency_microseconds` and `ts_queue_latency_microseconds`",
            "counts them, as it does in `ts_inference_requests_total`",
            "The mean latency of servers with gRPC clients rises to its true value.",
        ),
        "metric syntax": Difference(
            "refuses printed metrics with values such as `1e+20` or `nan`, and units with `/`, `%`, `-` or `.`",
            "takes them",
        ),
        "label values": Difference(
            "loses or shifts values of dimensions that contain `:` or `,`",
            "keeps them, where they come through `context.metrics`; printed lines are split as they were",
        ),
        "api errors": Difference(
            "reports an update that `context.metrics` refuses as a line that cannot be parsed, too",
            "logs it once",
        ),
        "histograms by name": Difference(
            "`/metrics?name[]=` with the name of a histogram selects nothing",
            "selects its `_bucket`, `_count` and `_sum`, which can be named one by one as well",
        ),
    },
    "Logs": {
        "server lines once": Difference(
            "writes every line of `org.pytorch.serve` into `ts_log.log` twice",
            "writes it once; with a configuration that names an appender twice, too",
        ),
        "debug lines of requests": Difference(
            "writes lines at DEBUG about every request and batch by default",
            "writes them only where a log configuration or `log_level` asks for DEBUG",
            "Set `log_level=debug` where something reads `Waiting time ns: ...`.",
        ),
        "last words": Difference(
            "stops logging before it ends",
            "`Torchserve stopped.` is the last line",
        ),
        "broken log configuration": Difference(
            "logs nothing below ERROR, and no files, if the XML cannot be parsed",
            "complains on standard error and logs as without a configuration",
        ),
        "log configurations of Python": Difference(
            "reads log4j2's files alone",
            "also takes `.yaml`, `.json`, `.ini` and `.conf` files for Python's `logging`",
        ),
        "json lines": Difference(
            "`JsonLayout` and `JSONPatternLayout` do not work",
            "they do; and `log_format=json` makes standard output one JSON object per line, with request id, model, "
            "version and worker",
        ),
    },
    "Command line and configuration": {
        "exit status": Difference(
            "a start in the foreground that fails ends with status 0",
            "ends with status 1; an address that is taken is named",
        ),
        "start-up models": Difference(
            "does not start if `--models` names a model twice",
            "starts without the second one, as without any other model that cannot be loaded, and logs it",
        ),
        "blanks between models": Difference(
            "looks for a file whose name begins with a blank for `load_models=a.mar, b.mar`",
            "leaves the blanks out",
        ),
        "bad numbers": Difference(
            "starts with a `job_queue_size` that is no number, and then refuses registrations with 403",
            "does not start: `Invalid configuration: For input string: ...`",
        ),
        "unknown keys": Difference(
            "says nothing of keys that it does not know",
            "names them, and where they stand, in a WARN line",
        ),
        "misspelt options": Difference(
            "does not say in which model an option is invalid, and nothing of misspelt ones",
            "names file, model and version, and the option that was probably meant",
        ),
        "odd model configurations": Difference(
            "cannot load a model whose configuration file is empty or holds a list; handlers see None",
            "an empty file is like none; a list is refused like a file that cannot be parsed",
        ),
        "delay of 0": Difference(
            "takes `maxBatchDelay: 0` in an archive's file or in `models` for unset",
            "0 is 0: no batch waits",
        ),
    },
    "Archiver": {
        "archiver's temporary files": Difference(
            "`torch-model-archiver` deletes what has the model's name in the temporary directory, works there, and "
            "leaves it behind when it fails",
            "works in a directory of its own and removes it",
        ),
        "function of a handler file": Difference(
            "`--handler h.py:function` is a missing file to the archiver, though the server takes it from a manifest",
            "packs `h.py`",
        ),
        "blanks between extra files": Difference(
            "takes blanks in `--extra-files` for parts of names",
            "they separate",
        ),
        "missing export directory": Difference(
            "refuses an `--export-path` that is missing",
            "makes it, and says so",
        ),
        "archive replaced when complete": Difference(
            "`--force` leaves half an archive in the place of the old one when it fails",
            "replaces the old one when the new one is complete",
        ),
    },
    "Saved configurations": {
        "failed starts": Difference(
            "saves an empty configuration when a start fails; the next start comes up without models",
            "saves nothing then",
        ),
        "stray files": Difference(
            "does not start, or starts with it, if any other file lies in `logs/config`",
            "skips files whose names are not those of saved configurations, and says so",
        ),
        "passwords": Difference(
            "writes them, `keystore_pass` included, so that everybody may read them",
            "writes them with mode 0600",
            "Tools that read them run as the server's user.",
        ),
    },
    "Tokens": {
        "shared port": Difference(
            "on one port for all APIs wants both keys at once for all but predictions, so that nothing else can be "
            "called; "
            "`/models/{model}/{version}` is 404 there even without tokens",
            "each route takes its own key; `/metrics` and unknown paths either of both",
        ),
        "key file": Difference(
            "leaves `key_file.json` behind unless `torchserve --stop` is called in the directory where it lies",
            "removes it when it is stopped, by `--stop` or by SIGTERM",
        ),
        "token in a header": Difference(
            "takes any management request that has `/token` in a header (a Referer) for one that renews a key",
            "only the path `/token` renews keys",
        ),
    },
    "TLS": {
        "tls 1.3": Difference(
            "REST over TLS 1.2 with two cipher suites, and nothing else",
            "TLS 1.2 and 1.3; the two suites and modern ones",
        ),
        "kinds of keys": Difference(
            "takes RSA keys that are not encrypted",
            "takes ECDSA and EdDSA keys too, encrypted ones with `private_key_pass`, and with `client_ca_file` asks "
            "clients for certificates",
        ),
        "no certificate": Difference(
            "does not start with an https address and no key material",
            "serves a self-signed certificate that it makes at the start, and warns",
            "Name a `keystore`, or `private_key_file` and `certificate_file`: no client trusts that certificate.",
        ),
    },
    "KServe and Open Inference over REST": {
        "open inference over rest": Difference(
            "of version 2 it has health, server metadata, and `infer` and `explain` of the default version; errors "
            "lack the member `error` that clients read, versions are 501",
            "has the whole protocol where `ts_open_inference_protocol` is on: metadata and readiness of models and "
            "versions, inference by version, statistics, the repository; every error of `/v2` has `error`",
        ),
        "tensors over rest": Difference(
            "hands a body with binary tensors to the handler as it came",
            "reads them, in requests that may be compressed, and writes outputs as bytes where the client asks for it; "
            "models may declare their tensors, and handlers that know nothing of the protocol get rows",
        ),
        "types of kserve's answers": Difference(
            "answers of `/v1` and `/v2` have no content type unless the handler sets one",
            "those that are JSON have `application/json`",
        ),
        "envelopes and batches": Difference(
            "the envelopes `kserve` and `kservev2` see only the first request of a batch: 503 for all",
            "each request of a batch gets its own answer",
        ),
        "envelopes and bad requests": Difference(
            "503 `Prediction failed` for a request that an envelope cannot read, and for empty `instances`",
            "400 with what is wrong; `kserve` answers empty `instances` with empty `predictions`",
            "Clients that retry 503 stop doing so for these.",
        ),
        "envelopes and describe": Difference(
            "503 for `customized=true` under an envelope", "asks the handler, without the envelope"
        ),
        "older envelopes": Difference(
            "workers do not start with the envelopes `kfserving` and `kfservingv2`", "takes them for their new names"
        ),
        "readiness of models": Difference(
            "`GET /v1/models/{model}` is on the management port only, and true while workers load",
            "is on both, and true when as many workers are ready as the model is to have, at least one; "
            "`GET /v1/models` lists the models, and `GET /` is a sign of life where KServe is served",
        ),
    },
    "gRPC": {
        "grpc stream of one": Difference(
            "`StreamPredictions` of a handler that sends no pieces ends with `Worker died.`; the worker is restarted",
            "one message, then OK; no call, however it ends, costs a worker",
        ),
        "grpc pieces joined": Difference(
            "`Predictions` of a handler that sends pieces answers with the first one; the worker never serves again",
            "answers with all pieces joined, at most `max_response_size`",
        ),
        "grpc half-close": Difference(
            "ends `StreamPredictions2` as soon as the client sends no more: answers that are still owed are lost, and "
            "the worker never serves again",
            "sends all answers first",
        ),
        "grpc errors in band": Difference(
            "an error of the handler, or a model that does not exist, ends `StreamPredictions2` without a message and "
            "may break the connection",
            "is an answer with a `status`; the stream goes on",
        ),
        "grpc without sequences": Difference(
            "`StreamPredictions2` to a model without `sequenceBatching` ends with `UNKNOWN`",
            "serves the messages as requests of their own, the answers of one `sequence_id` in order",
        ),
        "grpc calls of sequences": Difference(
            "`Predictions` and `StreamPredictions` of a stateful model wait for ever",
            "belong to the sequence in `sequence_id`, or begin one, whose id the answer has",
        ),
        "continuous grpc": Difference(
            "with continuous batching a call gets the first piece of its answer and never ends",
            "gets every piece, and its end; `Predictions` gets them joined",
        ),
        "grpc sequence headers": Difference(
            "never sees the input `ts_request_sequence_start`, and tells every handler that the sequence ends",
            "makes an id where a sequence starts without one and tells it in `sequence_id`; the end is the client's",
        ),
        "grpc standard service": Difference(
            "serves Open Inference as `org.pytorch.serve.grpc.openinference.GRPCInferenceService` only, a name that "
            "clients of KServe and Triton do not know",
            "serves it as `inference.GRPCInferenceService` too, with `ModelStreamInfer`, `ModelStatistics` and the "
            "calls of a repository; there errors have the code that fits and one line of text, and texts no quotes",
        ),
        "grpc raw tensors": Difference(
            "ignores `raw_input_contents` and never sends `raw_output_contents`, so that FP16 and BF16 cannot be sent",
            "reads them, checks them against the shape (`INVALID_ARGUMENT`), and answers raw requests in raw form",
        ),
        "grpc unsigned tensors": Difference(
            "hands unsigned numbers from 2³¹ (UINT64: 2⁶³) on to handlers as negative ones",
            "hands them on as they are",
        ),
        "grpc results of tensors": Difference(
            "restarts the worker (`Worker died.`) if the result of `ModelInfer` is not an object with id, model_name, "
            "model_version and flat data",
            "fills in what is missing and flattens data; what has no outputs is `INTERNAL`, and the worker goes on",
        ),
        "grpc server metadata": Difference("has no `ServerMetadata`", "has it"),
        "grpc ready models": Difference(
            "`ModelReady` is true without workers, and while they load",
            "is true when as many workers are ready as the model is to have, at least one",
        ),
        "grpc cancellation": Difference(
            "runs requests whose calls were cancelled or whose deadlines have passed",
            "takes them out of the queue at once; a handler that runs them sees `context.cancelled`",
        ),
        "grpc message size": Difference(
            "a message over `max_request_size` is `CANCELLED` for the client",
            "is `RESOURCE_EXHAUSTED`",
        ),
        "grpc mute refusals": Difference(
            "registering a version twice, removing the default version, or scaling nothing is `UNKNOWN` without text",
            "`ABORTED`, `PERMISSION_DENIED`, `INVALID_ARGUMENT`, with the texts of REST",
        ),
        "grpc pages": Difference(
            "`ListModels` without `limit` lists nothing",
            "lists up to 100 models",
        ),
        "grpc customized describe": Difference(
            "`customized` of a model without workers, or that does not exist, is `INTERNAL` without a useful text",
            "says that there is no worker; `NOT_FOUND`",
        ),
        "grpc refused keys": Difference(
            "does not log calls that it refuses for want of a key",
            "logs them, with code 7",
        ),
        "grpc unix sockets": Difference(
            "does not start with `grpc_inference_address=unix:/path`",
            "listens on that socket; so for management",
        ),
        "grpc tls": Difference(
            "`enable_grpc_ssl` without certificate ends with a Java trace; `keystore` is not used",
            "says what is missing; takes the identity of REST, a key store too",
        ),
        "grpc end": Difference(
            "waits for open streams without limit when it is stopped",
            "cuts what still runs after `drain_timeout`, with `UNAVAILABLE`",
        ),
    },
}
DIFFERENCES = {name: difference for rows in TOPICS.values() for name, difference in rows.items()}
