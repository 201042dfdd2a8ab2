"""Servers for the contract of metrics: a model that records metrics as it is told, and the text that is scraped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from contract.server import ContractServer
from harness.archives import pack
from harness.server import eventually

SAMPLE = re.compile(r'([A-Za-z_:][\w:]*)(?:\{((?:[A-Za-z_]\w*="[^"]*",)+)\})? (\S+)')
_LABEL = re.compile(r'(\w+)="([^"]*)",')

# Does what the request says. The HandlerTime comes from the base handler, which takes seconds to be imported.
METERED = """
import json
import os
import sys
import time

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes


class Metered:
    def handle(self, data, context):
        return self.postprocess(self.inference(self.preprocess(data)))

    def initialize(self, context):
        self.context = context
        metrics = context.metrics
        self.model = context.manifest["model"]["modelName"]
        self.requests = metrics.add_metric_to_cache("InferenceRequestCount", "count", [], MetricTypes.COUNTER)
        metrics.add_counter("InitializeCallCount", 1, None, [Dimension("ModelName", self.model)])
        self.initialized = True

    def preprocess(self, data):
        metrics = self.context.metrics
        self.requests.add_or_update(len(data), [])
        metrics.add_counter("PreprocessCallCount", 1, None, [Dimension("ModelName", self.model)])
        metrics.add_size("SizeOfImage", 2, None, "kB")
        metrics.add_time("HandlerMethodTime", 9.5, None, "ms", [Dimension("MethodName", "preprocess")])
        metrics.add_percent("ExamplePercentMetric", 50, None, [], MetricTypes.HISTOGRAM)
        metrics.add_metric("RequestBatchSize", len(data), "count", None, [], MetricTypes.GAUGE)
        return [row.get("body") or {} for row in data]

    def inference(self, orders):
        return [self.obey(order) for order in orders]

    def obey(self, order):
        match order.get("do"):
            case "raise":
                raise ValueError("no")
            case "exit":
                os._exit(1)
            case "status":
                self.context.set_response_status(order["code"], "told so", idx=0)
            case "print":
                print(order["line"], file=getattr(sys, order["stream"]), flush=True)
            case "pieces":
                for number in range(3):
                    text = "Intermediate Prediction success"
                    send_intermediate_predict_response(
                        [f"part{number}"], self.context.request_ids, text, 200, self.context
                    )
                while "gate" in order and not os.path.exists(f"{os.environ['CONTRACT_RECORD']}/{order['gate']}.gate"):
                    time.sleep(0.01)
            case "count":
                dimensions = [Dimension(name, value) for name, value in order.get("dimensions", {}).items()]
                self.context.metrics.add_counter(order["name"], order["value"], None, dimensions)
        return "done"

    def postprocess(self, answers):
        self.context.metrics.add_counter("PostprocessCallCount", 1, None, [Dimension("Stage", "post")])
        return answers
"""
_PLAIN = METERED[METERED.index("class Metered") : METERED.index("    def initialize")]
_DERIVED = """from ts.torch_handler.base_handler import BaseHandler


class Metered(BaseHandler):
"""


@contextmanager
def metered(
    server: ContractServer, name: str = "metered", *, with_base_handler: bool = False, **parameters: Any
) -> Iterator[str]:
    """The model, registered."""
    pack(server.store, name, METERED.replace(_PLAIN, _DERIVED) if with_base_handler else METERED)
    answer = server.register(f"{name}.mar", **parameters)
    assert answer.status_code == 200, answer.text
    yield name
    server.delete(name)


def scrape(server: ContractServer, query: str = "") -> str:
    """The exposition text."""
    answer = server.request("GET", f"/metrics{query}", "Metrics")
    assert answer.status_code == 200, answer.text
    return answer.text


def families(text: str) -> dict[str, str]:
    """Type by name of every family in an exposition text."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def value(server: ContractServer, name: str, **labels: str) -> float:
    """Sum of the samples of that name which have these labels; 0 where there is none."""
    return total(scrape(server), name, **labels)


def total(text: str, name: str, **labels: str) -> float:
    """The same in an exposition text."""
    return sum(number for found, number in samples(text, name) if labels.items() <= found.items())


def labels(server: ContractServer, name: str) -> list[list[str]]:
    """Label names of the samples of that name, in order."""
    return [list(found) for found, _ in samples(scrape(server), name)]


def samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of every sample of that name."""
    found = filter(None, map(SAMPLE.fullmatch, text.splitlines()))
    return [(dict(_LABEL.findall(match[2] or "")), float(match[3])) for match in found if match[1] == name]


def messages(server: ContractServer, log: str, *, since: int = 0) -> list[str]:
    """Messages of a metric log behind that many lines."""
    return [line.partition(" - ")[2] for line in server.log(log).splitlines()[since:]]


def metric_names(server: ContractServer, log: str, *, since: int = 0) -> list[str]:
    """Of the updates in a metric log."""
    return [message.partition(".")[0] for message in messages(server, log, since=since)]


def await_value(server: ContractServer, expected: float, name: str, **labels: str) -> None:
    """Return when a metric has that value: TorchServe takes in what workers report behind the answer."""
    eventually(lambda: value(server, name, **labels) == expected)
