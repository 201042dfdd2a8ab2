"""A conversation with a server: requests of every kind, one after the other, on which the next ones build."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from contract.rest_server import PUPPET
from contract.talk import Answer, Exchange, refusal
from harness.archives import NOOP, pack

# Tells its row, each value with its type, and its headers, in an order that does not depend on the server.
TELLER = """
import json


def shown(value):
    return [type(value).__name__, bytes(value).decode("latin-1") if isinstance(value, bytearray) else value]


def handle(data, context):
    if data is None:
        return None
    rows = [{name: shown(value) for name, value in row.items()} for row in data]
    headers = [dict(context.get_all_request_header(index)) for index in range(len(data))]
    if "describe" in headers[0]:
        return [{"rows": len(rows)}]
    return [json.dumps({"row": row, "headers": seen}, sort_keys=True) for row, seen in zip(rows, headers)]
"""
BROKEN = """
class Broken:
    def initialize(self, context):
        raise ValueError("weights are gone")

    def handle(self, data, context):
        return data
"""
CONFIG = {"max_request_size": 2000}
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MULTIPART = "multipart/form-data; boundary=b"


def pack_models(store: Path) -> None:
    """The archives that the conversation speaks of."""
    for name, source in {"teller": TELLER, "puppet": PUPPET, "broken": BROKEN, "plain": NOOP}.items():
        pack(store, name, source)
    pack(store, "plain", NOOP, version="2.0", archive="plain-2")


def part(disposition: str, value: str, content_type: str = "") -> bytes:
    typed = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"--b\r\nContent-Disposition: form-data{disposition}\r\n{typed}\r\n{value}\r\n--b--\r\n".encode()


def order(name: str, body: str, **options: Any) -> Exchange:
    """What the puppet shall do."""
    return Exchange(f"puppet: {name}", "POST /predictions/puppet", content_type=JSON, body=body.encode(), **options)


def without_file(url: str) -> Answer:
    """The answer to a registration from a url that leads nowhere."""
    return refusal(404, "ModelNotFoundException", f"Model not found at: {url}")


def with_own_ids(answer: Answer) -> Answer:
    """The outline of an OpenAPI document whose operations have names of their own."""
    operations = {name: {**operation} for name, operation in answer["outline"]["operations"].items()}
    for name, operation in operations.items():
        if kserve := re.match(r"post /(v\d)/", name):
            operation["id"] = f"{kserve[1]}_{operation['id']}"
            operation["parameters"] = ["path model_name: string, required"]
        if re.fullmatch(r"get /models/{model_name}(/{model_version})?", name):
            operation["parameters"] = [*operation["parameters"], "query customized: boolean, optional"]
            operation["responses"] = [*operation["responses"], "503"]
    return {**answer, "outline": {**answer["outline"], "operations": operations}}


def done(status: str) -> Answer:
    """The members of an answer that is no error."""
    text = json.dumps({"status": status}, indent=2) + "\n"
    return {"status": 200, "headers": {"connection": "keep-alive"}, "body": text}


Manage = partial(Exchange, api="Management")
bad_request = partial(refusal, 400, "BadRequestException")
NOT_ALLOWED = refusal(
    405, "MethodNotAllowedException", "Requested method is not allowed, please refer to API document."
)
TOO_LARGE = refusal(413, "BadRequestException", "Request body exceeds max_request_size of 2000 bytes.")
HEALTHY = done("Healthy")
ANSWERED: Answer = {"status": 200, "headers": {"connection": "keep-alive", "content-type": None}}
CLOSED: Answer = {"headers": {"connection": "close"}}

REGISTRATION = [
    Manage("no models", "GET /models"),
    Manage("register without url", "POST /models"),
    Manage("register an empty url", "POST /models?url="),
    Manage("register a relative path", "POST /models?url=../fake.mar"),
    Manage("register dots", "POST /models?url=a..b.mar"),
    Manage("register nothing", "POST /models?url=nofile.mar"),
    Manage("register another scheme", "POST /models?url=ftp://h/m.mar"),
    Manage("register a url of a dot", "POST /models?url=.", fixed="urls of no file", instead=without_file(".")),
    Manage("register a url of a slash", "POST /models?url=/", fixed="urls of no file", instead=without_file("/")),
    Manage("register with an unknown runtime", "POST /models?url=plain.mar&runtime=python4"),
    Manage("register by form", "POST /models", content_type=FORM, body=b"url=plain.mar"),
    Manage(
        "register by bad json",
        "POST /models",
        content_type=JSON,
        body=b"{",
        fixed="json errors",
        instead=bad_request(
            "Request body is not valid JSON: "
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        ),
    ),
    Manage(
        "register by json without quotes",
        "POST /models",
        content_type=JSON,
        body=b"{url: nofile.mar}",
        fixed="json errors",
        instead=bad_request(
            "Request body is not valid JSON: "
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        ),
    ),
    Manage(
        "register by a list",
        "POST /models",
        content_type=JSON,
        body=b"[]",
        fixed="json errors",
        instead=bad_request("Request body is not a JSON object."),
    ),
    Manage(
        "register by nothing",
        "POST /models?url=nofile.mar",
        content_type=JSON,
        fixed="json registration",
        instead=without_file("nofile.mar"),
    ),
    Manage(
        "register a signed download",
        "POST /models?url=http://127.0.0.1:1/m.mar&s3_sse_kms=true",
        fixed="signed downloads",
        instead=refusal(400, "DownloadArchiveException", "Failed to download archive from: http://127.0.0.1:1/m.mar"),
    ),
    Manage("register a broken model", "POST /models?url=broken.mar&initial_workers=1"),
    Manage("register without workers", "POST /models?url=plain.mar&initial_workers=abc&batch_size=0"),
    Manage("register again", "POST /models?url=plain.mar"),
    Manage("register another version", "POST /models?url=plain-2.mar&model_name=plain&initial_workers=-1"),
    Manage("register and wait", "POST /models?url=teller.mar&initial_workers=1"),
    Manage(
        "register by json",
        "POST /models?url=nofile.mar",
        content_type="Application/JSON; charset=utf-8",
        body=b"{'url': 'puppet.mar', 'initial_workers': '1', 'max_batch_delay': 10, 'unknown': [1]}",
    ),
]
MANAGEMENT = [
    Manage("list", "GET /models"),
    Manage("list with a slash", "GET /models/"),
    Manage("list a page", "GET /models?limit=1&next_page_token=1"),
    Manage("list an empty page", "GET /models?limit=0"),
    Manage("list too much", "GET /models?limit=101"),
    Manage("list what is not there", "GET /models?next_page_token=9"),
    Manage("list to the end", "GET /models?limit=3"),
    Manage("describe", "GET /models/plain"),
    Manage("describe a worker", "GET /models/teller"),
    Manage("describe a version", "GET /models/plain/2.0"),
    Manage("describe an unknown model", "GET /models/nope"),
    Manage("describe an unknown version", "GET /models/plain/3.0"),
    Manage("describe by the handler", "GET /models/teller?customized=true"),
    Manage("describe without a handler", "GET /models/plain?customized=true"),
    Manage("scale up", "PUT /models/plain?min_worker=1&synchronous=true"),
    Manage("scale to where it is", "PUT /models/plain?min_worker=1"),
    Manage("scale a version", "PUT /models/plain/1.0?min_worker=1&max_worker=2&synchronous=true"),
    Manage("scale a version by the query", "PUT /models/plain?min_worker=1&model_version=1.0&synchronous=true"),
    Manage("scale between contradictions", "PUT /models/plain?min_worker=2&max_worker=1"),
    Manage("scale below nothing", "PUT /models/plain?max_worker=-1"),
    Manage("scale an unknown model", "PUT /models/nope"),
    Manage("scale an unknown version", "PUT /models/plain/3.0"),
    Manage("set the default", "PUT /models/plain/2.0/set-default"),
    Manage("set the default again", "PUT /models/plain/2.0/set-default"),
    Manage("set the default of an unknown model", "PUT /models/nope/1.0/set-default"),
    Manage("set the default to an unknown version", "PUT /models/plain/3.0/set-default"),
    Manage("get the default", "GET /models/plain/1.0/set-default", fixed="set-default only", instead=NOT_ALLOWED),
    Manage("set the default of no model", "PUT /x/y/z/set-default"),
    Manage("unregister the default", "DELETE /models/plain"),
    Manage("unregister the default by version", "DELETE /models/plain/2.0"),
    Manage("unregister an unknown version", "DELETE /models/plain/3.0"),
    Manage("unregister an unknown model", "DELETE /models/nope"),
    Manage("unregister a version", "DELETE /models/plain/1.0"),
    Manage("unregister the last version", "DELETE /models/plain?synchronous=nan"),
    Manage("describe what is gone", "GET /models/plain"),
    Manage("post to a model", "POST /models/teller"),
    Manage("head of a model", "HEAD /models/teller"),
    Manage("options of the list", "OPTIONS /models"),
    Manage("list by an unknown verb", "BREW /models"),
    Manage("list in small letters", "get /models"),
    Manage("an unknown verb for a model", "BREW /models/teller"),
    Manage("options of a model", "OPTIONS /models/teller", fixed="api description", instead=with_own_ids),
    Manage("options of management", "OPTIONS /", fixed="api description", instead=with_own_ids),
    Manage("the root of management", "GET /"),
    Manage("below a version", "GET /models/teller/1.0/foo"),
    Manage("ping management", "GET /ping"),
    Manage("predict by management", "POST /predictions/teller"),
    Manage("metrics of management", "GET /metrics"),
    Manage("renew a key that there is not", "GET /token?type=inference"),
    Manage("readiness of a model", "GET /v1/models/teller"),
    Manage("readiness of an unknown model", "GET /v1/models/nope"),
    Manage(
        "register an empty handler",
        "POST /models?url=plain.mar&handler=&initial_workers=1",
        fixed="empty handler",
        instead=done('Model "plain" Version: 1.0 registered with 1 initial workers'),
    ),
    Manage(
        "unregister an empty handler",
        "DELETE /models/plain",
        fixed="empty handler",
        instead=done('Model "plain" unregistered'),
    ),
    Manage(
        "register a name with a slash",
        "POST /models?url=plain.mar&model_name=a/b",
        fixed="names with slashes",
        instead=bad_request("Model name contains a slash or a control character: 'a/b'"),
    ),
    Manage("unregister a name with a slash", "DELETE /models/a%2Fb"),
    Manage("options of metrics", "OPTIONS /", api="Metrics"),
    Manage("an unknown path of metrics", "GET /nothing", api="Metrics"),
]
ROUTES = [
    Exchange("ping", "GET /ping"),
    Exchange("ping with a slash", "GET /ping/"),
    Exchange("ping below", "PUT /ping/x"),
    Exchange("ping by an unknown verb", "BREW /ping"),
    Exchange("ping in small letters", "get /ping"),
    Exchange("head of ping", "HEAD /ping"),
    Exchange("two slashes", "GET //ping"),
    Exchange("the root", "GET /"),
    Exchange("options", "OPTIONS /", fixed="api description", instead=with_own_ids),
    Exchange("the api description", "GET /api-description", fixed="api description", instead=with_own_ids),
    Exchange("nothing", "GET /nothing"),
    Exchange("delete nothing", "DELETE /nothing"),
    Exchange("options of nothing", "OPTIONS /nothing"),
    Exchange("predict nothing", "GET /predictions/"),
    Exchange("predict an empty name", "GET /predictions//x"),
    Exchange("predict an unknown model", "POST /predictions/nope"),
    Exchange("predict an unknown version", "POST /predictions/teller/9.9"),
    Exchange("predict by an escaped name", "POST /predictions/%74eller"),
    Exchange(
        "predict by a bad escape",
        "GET /predictions/%zz",
        fixed="bad escapes",
        instead=bad_request("invalid hex byte 'zz' at index 14 of '/predictions/%zz'"),
    ),
    Exchange("options of a prediction", "OPTIONS /predictions/teller", fixed="api description", instead=with_own_ids),
    Exchange("options of an unknown prediction", "OPTIONS /predictions/nope"),
    Exchange("head of a prediction", "HEAD /predictions/teller"),
    Exchange("patch", "PATCH /predictions/teller/1.0/", body=b"x"),
    Exchange("an unknown verb", "BREW /predictions/teller", body=b"x"),
    Exchange("the rest of the path", "GET /predictions/teller/1.0/a/b%20c/"),
    Exchange("the query of a prediction", "GET /predictions/teller?a=1&b=%zz"),
    Exchange("explain", "POST /explanations/teller", body=b"x", headers={"explain": "False"}),
    Exchange("explain nothing", "GET /explanations"),
    Exchange("invoke", "POST /models/teller/invoke?a=1&b=x+y&a=2", body=b"x", headers={"explain": "sent"}),
    Exchange(
        "invoke with a bad query",
        "GET /models/teller/invoke?a=%zz",
        fixed="bad escapes",
        instead=bad_request("invalid hex byte 'zz' at index 1 of '%zz'"),
    ),
    Exchange("another verb of a model", "POST /models/teller/foo"),
    Exchange("invocations", "POST /invocations?model_name=teller&c=3", content_type=JSON, body=b"[1]"),
    Exchange("invocations by form", "POST /invocations", content_type=FORM, body=b"model_name=teller&x=1"),
    Exchange("invocations of nothing", "POST /invocations", content_type=JSON, body=b'{"model_name": "teller"}'),
    Exchange("invocations of an unknown model", "POST /invocations?model_name=nope"),
    Exchange("invocations of an empty name", "POST /invocations?model_name="),
    Exchange("invoke with odd queries", "GET /models/teller/invoke?a&b=&==c&d=1=2&=&;e;f=%2B+&"),
    Exchange("legacy", "POST /teller/predict?q=1", content_type=FORM, body=b"x=1"),
    Exchange("legacy with a version", "GET /teller/1.0/predict"),
    Exchange("legacy with an unknown version", "GET /teller/2.0/predict"),
    Exchange("execution parameters", "GET /execution-parameters"),
]
PREDICT = "POST /predictions/teller"
LONELY = (
    '{"headers": {"Content-Length": "10", "Content-Type": "application/x-www-form-urlencoded", "Host": "server", '
    '"a": {"content-type": ""}, "explain": "False", "lonely": {"content-type": ""}, "url_path": ""}, '
    '"row": {"a": ["bytearray", "1"], "lonely": ["bytearray", ""]}}'
)
BODIES = [
    Exchange("raw", PREDICT, body=b"\x00\xff"),
    Exchange("json", PREDICT, content_type=JSON, body=b'{"a": [1, null, "\\u00e9"]}'),
    Exchange("json with a charset", PREDICT, content_type="application/json; charset=utf-8", body=b"[1]"),
    Exchange("json before a blank", PREDICT, content_type="application/json ; x", body=b"[1]"),
    Exchange("json of two types", PREDICT, headers={"Content-Type": JSON, "content-type": "text/plain"}, body=b"[1]"),
    Exchange("json in capitals", PREDICT, content_type="Application/JSON", body=b"[1]"),
    Exchange("bad json", PREDICT, content_type=JSON, body=b"{bad"),
    Exchange("text", PREDICT, content_type="text/plain; charset=latin-1", body="\u00e9".encode()),
    Exchange("bad text", PREDICT, content_type="text/plain", body=b"\xe9"),
    Exchange("form", PREDICT, content_type=FORM, body=b"data=hello&x=1&x=2&e=%C3%A9+a%2Bb&empty=&no&y=1;2"),
    Exchange("form that ends in a line", PREDICT, content_type=FORM, body=b"a=1&b=2\r\nc=3&d=4"),
    Exchange(
        "form with empty fields",
        PREDICT,
        content_type=FORM,
        body=b"&&a=1&&",
        fixed="empty fields of a form",
        instead={
            **ANSWERED,
            "body": '{"headers": {"Content-Length": "7", "Content-Type": "application/x-www-form-urlencoded", '
            '"Host": "server", "a": {"content-type": ""}, "explain": "False", "url_path": ""}, '
            '"row": {"a": ["bytearray", "1"]}}',
        },
    ),
    Exchange(
        "form with an empty name",
        PREDICT,
        content_type=FORM,
        body=b"=1",
        fixed="unreadable bodies",
        instead=bad_request("Invalid form: a field has no name"),
    ),
    Exchange(
        "form that ends in a name",
        PREDICT,
        content_type=FORM,
        body=b"a=1&lonely",
        fixed="last field of a form",
        instead={"body": LONELY},
    ),
    Exchange(
        "form with a bad escape",
        PREDICT,
        content_type=FORM,
        body=b"a=%zz",
        fixed="unreadable bodies",
        instead=bad_request("invalid hex byte 'zz' at index 1 of '%zz'"),
    ),
    Exchange("field", PREDICT, content_type=MULTIPART, body=part('; name="a"', "{}", JSON)),
    Exchange("file", PREDICT, content_type=MULTIPART, body=part('; name="a"; filename="f"', "{}", JSON)),
    Exchange("file without type", PREDICT, content_type=MULTIPART, body=part('; name="a"; filename="f"', "x")),
    Exchange(
        "part without name",
        PREDICT,
        content_type=MULTIPART,
        body=part("", "x"),
        fixed="unreadable bodies",
        instead=bad_request("Invalid multipart body: a part has no name"),
    ),
    Exchange(
        "part with an empty name",
        PREDICT,
        content_type=MULTIPART,
        body=part('; name=""', "x"),
        fixed="unreadable bodies",
        instead=bad_request("Invalid multipart body: a part has no name"),
    ),
    Exchange(
        "multipart that is cut off",
        PREDICT,
        content_type=MULTIPART,
        body=part('; name="a"', "x").removesuffix(b"--b--\r\n"),
        fixed="multipart bodies",
        instead=bad_request("Invalid multipart body: the last part has no end"),
    ),
    Exchange(
        "multipart with a preamble",
        PREDICT,
        content_type=MULTIPART,
        body=b"hello\r\n" + part('; name="a"', "x"),
        fixed="multipart bodies",
        instead={
            "body": '{"headers": {"Content-Length": "66", "Content-Type": "multipart/form-data; boundary=b", '
            '"Host": "server", "a": {"content-type": ""}, "explain": "False", "url_path": ""}, '
            '"row": {"a": ["bytearray", "x"]}}'
        },
    ),
    Exchange("multipart with an epilogue", PREDICT, content_type=MULTIPART, body=part('; name="a"', "x") + b"bye"),
    Exchange("multipart without boundary", PREDICT, content_type="multipart/form-data", body=b"x"),
    Exchange("gzip", PREDICT, body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
    Exchange("chunked", PREDICT, body=b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", framing="Transfer-Encoding: chunked"),
    Exchange("headers", PREDICT, headers={"X-Own": "a  b", "x-dup": "1", "X-Dup": "2", "x-request-id": "mine"}),
    Exchange("forged headers", PREDICT, headers={"explain": "True", "url_path": "x", "describes": "True"}),
]
REPLIES = [
    order("text", '{"answer": "gr\\u00fc\\u00df"}'),
    order("object", '{"answer": {"b": "\\u00e9", "a": null}}'),
    order("list", '{"answer": [1, 2.5, true]}'),
    order("nothing", '{"answer": null}'),
    order("empty", '{"answer": ""}'),
    order("type", '{"describe": "text/csv; charset=utf-8"}'),
    order("headers", '{"headers": {"X-Own": "v", "Pragma": "x", "Connection": "close", "Content-Length": "3"}}'),
    order(
        "framing",
        '{"headers": {"Transfer-Encoding": "chunked"}}',
        fixed="framing",
        instead={"headers": {"transfer-encoding": None}},
    ),
    order("created", '{"status": 201}'),
    order("no content", '{"status": 204}'),
    order("not modified", '{"status": 304}'),
    order("absent", '{"status": 404}'),
    order("599", '{"status": 599}'),
    order("a status beyond", '{"status": 700}', fixed="impossible statuses", instead={"status": 500}),
    order("exception", '{"raise": "ValueError", "status": 201, "headers": {"X-Own": "v"}}'),
    order("memory", '{"raise": "MemoryError"}'),
    order("cuda", '{"raise": "CUDA"}'),
    order("refused", '{"raise": "PredictionException"}'),
    order("not found", '{"raise": "404"}'),
    order("too large", '{"raise": "413"}'),
    order("fine", '{"raise": "200"}'),
    order("no list", '{"result": "text"}'),
    order("too few", '{"result": "short"}'),
    order("not serializable", '{"result": "object"}'),
    order("pieces", '{"pieces": ["c0 ", "c1 "], "answer": "last"}'),
    order("pieces of no content", '{"pieces": ["a"], "status": 204}'),
    order("death", '{"die": "exit"}'),
    order(
        "a header of two lines",
        '{"headers": {"X-Own": "a\\r\\nb"}}',
        fixed="impossible headers",
        instead=refusal(503, "InternalServerException", "Prediction failed"),
    ),
]
PING = "GET /ping"
PROTOCOL = [
    Exchange("too large", PREDICT, body=b"x" * 2001, fixed="body too large", instead=TOO_LARGE),
    Exchange(
        "too large in chunks",
        PREDICT,
        body=b"7d1\r\n%b\r\n0\r\n\r\n" % (b"x" * 2001),
        framing="Transfer-Encoding: chunked",
        fixed="body too large",
        instead=TOO_LARGE,
    ),
    Exchange("as large as may be", "POST /ping", body=b"x" * 2000),
    Exchange("told to close", PING, headers={"Connection": "close"}, fixed="connection close", instead=CLOSED),
    Exchange("http 1.0", PING, version="HTTP/1.0", fixed="connection close", instead=CLOSED),
    Exchange("http 1.0 kept alive", PING, version="HTTP/1.0", headers={"Connection": "keep-alive"}),
    Exchange(
        "a stream for http 1.0",
        "POST /predictions/puppet",
        content_type=JSON,
        version="HTTP/1.0",
        body=b'{"pieces": ["a"]}',
        fixed="streams for http 1.0",
        instead={"headers": {"connection": "close", "transfer-encoding": None}},
    ),
    Exchange(
        "upgrade", PING, headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AA"}
    ),
    Exchange("long header", PING, headers={"X-Long": "x" * 9000}, fixed="long lines and headers", instead=HEALTHY),
    Exchange("long line", f"{PING}?{'x' * 5000}", fixed="long lines and headers", instead=HEALTHY),
    Exchange("an absolute target", "GET http://server/ping", fixed="absolute targets", instead=HEALTHY),
    Exchange("a target that is none", "GET *", fixed="absolute targets", instead=NOT_ALLOWED),
    Exchange("bad length", "POST /ping", framing="Content-Length: many"),
    Exchange("bad header", PING, headers={"no colon\r\nX": "y"}),
]
CONVERSATION = [*REGISTRATION, *MANAGEMENT, *ROUTES, *BODIES, *REPLIES, *PROTOCOL]
