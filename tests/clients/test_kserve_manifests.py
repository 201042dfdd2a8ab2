"""The manifests for KServe follow the schemas that its SDK ships, down to the last member."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kserve
import kubernetes.client
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "docs" / "deployment" / "kserve"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
KINDS = {
    "ClusterServingRuntime": ("serving.kserve.io/v1alpha1", "V1alpha1ClusterServingRuntime"),
    "InferenceService": ("serving.kserve.io/v1beta1", "V1beta1InferenceService"),
}
PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "object": (object,)}
LIST = re.compile(r"(?i:list)\[(.+)\]")
MAP = re.compile(r"(?i:dict)[([]str, (.+)[)\]]")  # the two code generators spell it in their own ways
QUANTITY = ("ResourceQuantity", "K8sIoApimachineryPkgApiResourceQuantity")
PROBED = ("IntOrString", "K8sIoApimachineryPkgUtilIntstrIntOrString")


class Unfit(Exception):
    """A member that the schema does not have, or not so."""


def check(place: str, kind: str, value: Any) -> None:
    """Raises Unfit unless a value is what the schema says of its place."""
    if found := LIST.fullmatch(kind):
        require(place, isinstance(value, list), kind, value)
        for index, each in enumerate(value):
            check(f"{place}[{index}]", found[1], each)
    elif found := MAP.fullmatch(kind):
        require(place, isinstance(value, dict), kind, value)
        for name, each in value.items():
            require(place, isinstance(name, str), "text as a key", name)
            check(f"{place}.{name}", found[1], each)
    elif kind in PLAIN:
        boolean = isinstance(value, bool) and kind == "int"
        require(place, isinstance(value, PLAIN[kind]) and not boolean, kind, value)
    elif kind in QUANTITY or kind in PROBED:
        require(place, isinstance(value, str | int), kind, value)
    else:
        check_object(place, model_of(kind), value)


def check_object(place: str, model: Any, value: Any) -> None:
    require(place, isinstance(value, dict), model.__name__, value)
    members = {name: attribute for attribute, name in model.attribute_map.items()}
    for name, each in value.items():
        if name not in members:
            raise Unfit(f"{place}: {model.__name__} has no {name}")
        check(f"{place}.{name}", model.openapi_types[members[name]], each)
    try:
        model(**{members[name]: each for name, each in value.items()})  # which looks for what is required
    except ValueError as error:
        raise Unfit(f"{place}: {error}") from error


def model_of(kind: str) -> Any:
    """Models of Kubernetes have longer names in some places of the SDK."""
    short = re.sub(r"^K8sIoApi\w+?(V\d)", r"\1", kind)
    for module in (kserve, kserve.models, kubernetes.client):
        for name in (kind, short):
            if hasattr(module, name):
                return getattr(module, name)
    raise Unfit(f"no schema {kind}")


def require(place: str, fits: bool, kind: str, value: Any) -> None:
    if not fits:
        raise Unfit(f"{place}: should be {kind}, is {value!r}")


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_follow_their_schemas(path: Path) -> None:
    document = read(path)
    version, model = KINDS[document["kind"]]
    assert document["apiVersion"] == version
    check(document["kind"], model, document)


def test_what_does_not_follow_is_noticed() -> None:
    """So that the tests above can fail."""
    document = read(FOLDER / "inference-service-autoscaling.yaml")
    predictor = document["spec"]["predictor"]
    changes: list[dict[str, Any]] = [{"maxReplica": 1}, {"maxReplicas": "5"}, {"model": {"args": [1]}}, {"model": []}]
    for change in changes:
        spec = {**document["spec"], "predictor": {**predictor, **change}}
        with pytest.raises(Unfit, match=r"^InferenceService\.spec\.predictor\S*: "):
            check("InferenceService", "V1beta1InferenceService", {**document, "spec": spec})


def test_all_is_said_that_users_need() -> None:
    """A runtime, and services that choose it: for each protocol, with autoscaling, and with a canary."""
    runtime, *others = (read(path) for path in MANIFESTS)
    predictors = [other["spec"]["predictor"] for other in others]
    assert {predictor["model"]["runtime"] for predictor in predictors} == {runtime["metadata"]["name"]}
    protocols = {predictor["model"]["protocolVersion"] for predictor in predictors}
    assert protocols == set(runtime["spec"]["protocolVersions"])
    assert any("canaryTrafficPercent" in predictor for predictor in predictors)
    assert any("scaleTarget" in predictor for predictor in predictors)
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container", "which is the one that KServe looks for"
