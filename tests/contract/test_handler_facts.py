"""How handlers are found and loaded, what they see, and what becomes of what they return."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import pytest

from contract.rest_server import error, get_as_is, serving
from contract.server import ContractServer
from harness.archives import pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
NUMBERS = count()  # of models that live for one test
CONFIG = {"preload_modules": "torch,ts.torch_handler.base_handler", "model_metrics_auto_detect": "true"}

# Says what an expression in the request is worth, and remembers what it was when it was loaded.
TELLER = """
import json
import torch
from ts.utils.util import PredictionException


def fail(error):
    raise error


class Teller:
    def initialize(self, context):
        context.cache = {}
        self.loaded = {"ids": context.request_ids, "processors": context.request_processor}

    def handle(self, data, context):
        names = {**globals(), "self": self, "context": context, "data": data}
        return [eval(row["body"], {**names, "row": row, "i": index}) for index, row in enumerate(data)]
"""
FORMS = """
seen = []


def handle(data, context):
    if data is None:
        seen.append([context.request_ids, context.request_processor, hasattr(context, "cl_socket")])
        return "ignored"
    return [{"entry": "handle", "seen": seen}] * len(data)


def named(data, context):
    return None if data is None else ["named"] * len(data)


class Unused:
    pass
"""
CLASS = """
from ts.torch_handler.base_handler import BaseHandler


class Only(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [type(self).__name__] * len(data)
"""
STEPS = """
from ts.torch_handler.base_handler import BaseHandler


class Steps(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def preprocess(self, data):
        return [row["body"] for row in data]

    inference = postprocess = preprocess

    def inference(self, data):
        return data

    def postprocess(self, data):
        return data

    def describe_handle(self):
        return {"steps": 3}
"""
TIMED = """
from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler


class Timed(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    @timed
    def preprocess(self, data):
        return data

    @timed
    def inference(self, data):
        return data

    @timed
    def postprocess(self, data):
        return ["done"] * len(data)
"""
INSIGHTS = """
from ts.torch_handler.base_handler import BaseHandler


class Insights(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def preprocess(self, data):
        return data

    def inference(self, data):
        return data

    def postprocess(self, data):
        return ["predicted"] * len(data)

    def get_insights(self, prepared, inputs, target):
        return [{"explained": len(prepared), "target": repr(target)}] * len(prepared)
"""


@pytest.fixture(scope="module")
def teller(server: ContractServer) -> Iterator[str]:
    with serving(server, "teller", TELLER) as name:
        yield name


def tell(server: ContractServer, model: str, expression: str, **options: Any) -> httpx.Response:
    headers = {"content-type": "text/plain", **options.pop("headers", {})}
    return server.request("POST", f"/predictions/{model}", content=expression, headers=headers, **options)


def told(server: ContractServer, model: str, expression: str, **options: Any) -> Any:
    """What an expression of JSON types is worth in the handler."""
    return json.loads(tell(server, model, f"json.dumps({expression})", **options).text)


@check("handlers", 2)
@pytest.mark.parametrize(
    ("handler", "source", "expected"),
    [
        ("handler", FORMS, "handle"),
        ("handler.py", FORMS, "handle"),
        ("handler:named", FORMS, "named"),
        ("handler.py:named", FORMS, "named"),
        ("somewhere/else/handler.py:named", FORMS, "named"),
        ("handler:absent", CLASS, "Only"),
        ("handler", CLASS, "Only"),
    ],
)
def test_ways_to_name_a_handler(server: ContractServer, handler: str, source: str, expected: str) -> None:
    """Functions win; else the only class that the module defines."""
    name = f"named-{next(NUMBERS)}"
    with serving(server, name, source, handler=handler):
        assert expected in tell(server, name, "").text


@check("handlers", 2)
@pytest.mark.parametrize(
    ("source", "handler", "complaint"),
    [
        ("class A: pass\nclass B: pass\n", "handler", "ValueError: Expected only one class in custom service code"),
        ("class A:\n    def initialize(self, c): pass\n", "handler", "ValueError: Expect handle method in class"),
        ("class A:\n    def handle(self, d, c): return d\n", "handler", "'A' object has no attribute 'initialize'"),
        ("", "nowhere", "No module named 'ts.torch_handler.nowhere'"),
        ("class A:\n    pass\n", "handler:A", "TypeError: "),
    ],
)
def test_handlers_that_cannot_be_loaded(server: ContractServer, source: str, handler: str, complaint: str) -> None:
    """The model log says why; the client learns that there is no worker."""
    name = f"spoilt-{next(NUMBERS)}"
    pack(server.store, name, source)
    answer = server.register(f"{name}.mar", handler=handler)
    assert answer.status_code == 500
    assert error(answer)[2] == f"Failed to start workers for model {name} version: 1.0"
    eventually(lambda: any(complaint in line for line in server.model_log(name)))


@check("handlers", 3)
def test_the_call_that_loads_a_function(server: ContractServer) -> None:
    """It sees no data and no request, and what it returns is of no interest."""
    with serving(server, "loading", FORMS):
        assert tell(server, "loading", "").json() == {"entry": "handle", "seen": [[None, None, False]]}


@check("handlers", 3)
def test_the_call_that_initializes_a_class(server: ContractServer, teller: str) -> None:
    """It sees no request."""
    assert told(server, teller, "self.loaded") == {"ids": None, "processors": None}


@check("handlers", 4)
def test_system_properties(server: ContractServer, teller: str) -> None:
    """Six of them."""
    properties = told(server, teller, "context.system_properties")
    assert properties.keys() == {
        "model_dir",
        "gpu_id",
        "batch_size",
        "server_name",
        "server_version",
        "limit_max_image_pixels",
    }
    assert (properties["gpu_id"], properties["server_name"], properties["batch_size"]) == (None, "MMS", 1)
    assert properties["limit_max_image_pixels"] is True


@check("handlers", 4)
def test_what_else_a_context_has(server: ContractServer, teller: str) -> None:
    """The name, the manifest, the configuration, and the ids of requests."""
    expression = (
        "[context.model_name, context.manifest['model']['handler'], context.model_yaml_config, "
        "context.get_request_id(i) == context.request_ids[i], context.get_request_id(7), context.get_sequence_id(0), "
        "context.header_key_sequence_id, context.stopping_criteria]"
    )
    assert told(server, teller, expression) == [
        teller,
        "handler.py",
        {},
        True,
        None,
        None,
        "ts_request_sequence_id",
        None,
    ]


@check("handlers", 9)
@pytest.mark.parametrize(
    ("expression", "body"),
    [
        ("b'\\x00\\xff'", b"\x00\xff"),
        ("bytearray(b'abc')", b"abc"),
        ("'h\\u00e9'", "h\u00e9".encode()),
        ("''", b""),
        ("{'a': 1}", b'{\n  "a": 1\n}'),
        ("[1, [], {}, (2.5, True)]", b"[\n  1,\n  [],\n  {},\n  [\n    2.5,\n    true\n  ]\n]"),
        ("'\\u00e9',", b'[\n  "\\u00e9"\n]'),
        ("7", b"7"),
        ("1e-07", b"1e-07"),
        ("None", b"null"),
        ("float('nan')", b"NaN"),
        ("{1: float('inf'), None: -0.0}", b'{\n  "1": Infinity,\n  "null": -0.0\n}'),
        ("torch.ones(2, dtype=torch.float64).numpy()[0]", b"1.0"),
    ],
)
def test_values_as_bytes(server: ContractServer, teller: str, expression: str, body: bytes) -> None:
    """To the byte."""
    assert tell(server, teller, expression).content == body


@check("handlers", 9)
def test_a_tensor_is_a_saved_tensor(server: ContractServer, teller: str) -> None:
    """What `torch.save` writes."""
    expression = "torch.load(__import__('io').BytesIO(self.kept)).tolist()"
    saved = tell(server, teller, "torch.arange(3)").content
    assert saved.startswith(b"PK")
    assert told(server, teller, f"setattr(self, 'kept', bytes.fromhex('{saved.hex()}')) or {expression}") == [0, 1, 2]


@check("handlers", 10)
@pytest.mark.parametrize("expression", ["{'a': b'x'}", "torch.ones(1).numpy()", "{1, 2}", "object()", "[object()]"])
def test_values_that_are_no_json(server: ContractServer, teller: str, expression: str) -> None:
    """The request fails, and the log says so."""
    answer = tell(server, teller, expression)
    assert error(answer) == (503, "InternalServerException", "Unsupported model output data type.")
    eventually(lambda: any("Unable to serialize model output." in line for line in server.model_log(teller)))


@check("handlers", 11)
def test_statuses_of_one_batch_stay_apart(server: ContractServer) -> None:
    """Also phrases, types and headers; the next request begins anew."""
    expressions = [
        "context.set_response_status(201, 'Made', i) or context.set_response_content_type(i, 'text/made') or 'one'",
        "context.set_response_header(i, 'X-Own', 'b') or len(data)",
    ]
    with (
        serving(server, "apart", TELLER, batch_size=2, max_batch_delay=20_000),
        ThreadPoolExecutor(2) as clients,
    ):
        first, second = clients.map(lambda text: tell(server, "apart", text), expressions)
        assert (first.status_code, first.headers["content-type"], first.text) == (201, "text/made", "one")
        assert "x-own" not in first.headers
        assert (second.status_code, second.headers["x-own"], second.text) == (200, "b", "2")
        assert "content-type" not in second.headers
        again = list(clients.map(lambda text: tell(server, "apart", text), ["'x'", "'y'"]))
    assert [(answer.status_code, answer.text) for answer in again] == [(200, "x"), (200, "y")]
    assert not any({"content-type", "x-own"} & set(answer.headers) for answer in again)


@check("handlers", 10)
def test_all_members_of_a_batch_fail_alike(server: ContractServer) -> None:
    """The one that has failed, and the others."""
    expressions = ["fail(PredictionException('no', 418))", "'fine'"]
    with (
        serving(server, "alike", TELLER, batch_size=2, max_batch_delay=20_000),
        ThreadPoolExecutor(2) as clients,
    ):
        answers = list(clients.map(lambda text: tell(server, "alike", text), expressions))
    assert [error(answer) for answer in answers] == [(418, "InternalServerException", "no")] * 2


@check("handlers", 12)
def test_the_id_of_a_request(server: ContractServer, teller: str) -> None:
    """The header of the answer says what the context says, whatever the handler sets."""
    answer = tell(server, teller, "context.set_response_header(i, 'x-request-id', 'mine') or context.get_request_id(i)")
    assert answer.headers["x-request-id"] == answer.text
    assert "content-type" not in answer.headers


@check("handlers", 14)
def test_times_of_a_batch(server: ContractServer) -> None:
    """One line of each per batch, with the id of the request."""
    with serving(server, "steps", STEPS):
        sent = [tell(server, "steps", "x").headers["x-request-id"] for _ in range(2)]
    for name in ("HandlerTime", "PredictionTime"):
        await_metric(server, "steps", name, sent)


@check("handlers", 14)
@check("explain", 12)
@check("model config", 24)
def test_times_of_the_steps(server: ContractServer) -> None:
    """Where the model's configuration asks for them."""
    names = [f"ts_handler_{step}" for step in ("preprocess", "inference", "postprocess")]
    with serving(server, "timed", TIMED, config="handler:\n  profile: true\n"):
        sent = tell(server, "timed", "x").headers["x-request-id"]
    with serving(server, "untimed", TIMED):
        tell(server, "untimed", "x")
    for name in names:
        await_metric(server, "timed", name, [sent])
        assert metric_ids(server, "untimed", name) == []


def await_metric(server: ContractServer, model: str, name: str, ids: list[str]) -> None:
    """Return when there is one line of it for each of these requests."""
    eventually(lambda: metric_ids(server, model, name) == ids)


def metric_ids(server: ContractServer, model: str, name: str) -> list[str]:
    """Ids of the requests that lines of this metric are about."""
    form = rf"\b{name}\.\w+:[^|]+\|#ModelName:{model},Level:Model\|#hostname:[^,]+,requestID:([^,]+),timestamp:"
    return re.findall(form, server.log("model_metrics.log"))


@check("handlers", 23)
@check("explain", 14)
def test_what_a_handler_says_of_itself(server: ContractServer) -> None:
    """Where describe calls ask for it."""
    with serving(server, "described", STEPS):
        described = server.request("GET", "/models/described?customized=true", "Management").json()
    assert described[0]["customizedMetadata"] == {"steps": 3}


@check("handlers", 26)
def test_what_is_kept_on_the_context(server: ContractServer, teller: str) -> None:
    """The same object in all batches."""
    assert told(server, teller, "context.cache.setdefault('a', 1)") == 1
    assert told(server, teller, "context.cache.setdefault('a', 2)") == 1


@check("handlers", 28)
def test_a_handler_that_exits(server: ContractServer) -> None:
    """The worker dies, and another one takes its place."""
    with serving(server, "exits", TELLER):
        answer = tell(server, "exits", "fail(SystemExit('over'))")
        assert error(answer) == (500, "InternalServerException", "Worker died.")
        eventually(lambda: tell(server, "exits", "'back'").text == "back")


@check("explain", 1)
@check("handlers", 7)
@check("handlers", 8)
@pytest.mark.parametrize(
    ("target", "explain", "path"),
    [
        ("/predictions/{}", "False", ""),
        ("/predictions/{}/1.0", "False", ""),
        ("/predictions/{}/1.0/v1/chat/completion", "False", "v1/chat/completion"),
        ("/explanations/{}", "True", ""),
        ("/explanations/{}/1.0", "True", ""),
        ("/explanations/{}/1.0/a/b", "True", "a/b"),
        ("/v1/models/{}:predict", "False", None),
        ("/v2/models/{}/infer", "False", None),
        ("/v1/models/{}:explain", "True", None),
        ("/v2/models/{}/explain", "True", None),
        ("/models/{}/invoke", None, None),
        ("/{}/predict", None, None),
        ("/{}/1.0/predict", None, None),
    ],
)
def test_what_routes_tell_the_handler(
    server: ContractServer, teller: str, target: str, explain: str | None, path: str | None
) -> None:
    """By headers of the server's own, for which no client's counts where there are such."""
    expression = "json.dumps([context.get_request_header(i, name) for name in ('explain', 'url_path')])"
    headers = {"content-type": "text/plain", "Explain": "True"}
    answer = server.request("POST", target.format(teller), content=expression, headers=headers)
    assert json.loads(answer.text) == [explain, path]
    forged = server.request("POST", target.format(teller), content=expression, headers={**headers, "explain": "sent"})
    assert json.loads(forged.text)[0] == (explain or "sent")


@check("explain", 6)
def test_an_explanation_that_nobody_brings(server: ContractServer) -> None:
    """A failure of the handler, which lives on."""
    with serving(server, "unexplained", STEPS):
        answer = server.request("POST", "/explanations/unexplained", content=b"x")
        assert error(answer) == (503, "InternalServerException", "Prediction failed")
        assert tell(server, "unexplained", "x").text == "x"


@check("explain", 7)
@fixed("one kind")
def test_explanations_and_predictions_share_no_batch(server: ContractServer) -> None:
    """Though they share the queue."""
    targets = ["/predictions/mixed", "/explanations/mixed"] * 4
    with (
        serving(server, "mixed", INSIGHTS, batch_size=2, max_batch_delay=100),
        ThreadPoolExecutor(len(targets)) as clients,
    ):
        answers = list(clients.map(lambda target: server.request("POST", target, content=b"x").text, targets))
    assert ["predicted" if answer == "predicted" else "explained" for answer in answers] == [
        "predicted",
        "explained",
    ] * 4


@check("explain", 5)
@fixed("targets of forms")
def test_a_target_of_a_form_is_a_number(server: ContractServer) -> None:
    """Where it is one."""
    with serving(server, "target", INSIGHTS):
        form = {"data": "x", "target": "2"}
        answer = server.request("POST", "/explanations/target", data=form)
        assert answer.json() == {"explained": 1, "target": "2"}


@check("explain", 8)
def test_explanations_of_what_is_not_there(server: ContractServer, teller: str) -> None:
    """As predictions of it."""
    nothing = "Requested resource is not found, please refer to API document."
    assert error(get_as_is(server, "/explanations")) == (404, "ResourceNotFoundException", nothing)
    unknown = server.request("POST", "/explanations/nope", content=b"x")
    assert error(unknown) == (404, "ModelNotFoundException", "Model not found: nope")
    version = server.request("POST", f"/explanations/{teller}/9.9", content=b"x")
    assert error(version)[1:] == (
        "ModelVersionNotFoundException",
        f"Model version: 9.9 does not exist for model: {teller}",
    )
