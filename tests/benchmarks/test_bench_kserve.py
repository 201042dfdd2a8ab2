"""Open Inference under load, against a stand-in for TorchServe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.archives import Archives
from benchmarks.contenders import Contender, nothing
from benchmarks.figures import KSERVE, RATE, TENSOR_OVER_RAW, Samples, kserve_figure
from benchmarks.kserve import PIXELS, KserveBench, all_requests, picture_bytes, raw_bytes, small_json
from benchmarks.plan import Plan
from benchmarks.servers import RestServer
from benchmarks.targets import MODELSERVER
from benchmarks.triton import DEPLOYMENTS, MODELS, TritonServer
from benchmarks.wrk import write_body_script

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def run(program: Path, archives: Archives, directory: Path, infers: tuple[str, ...]) -> Samples:
    def launch(directory: Path) -> RestServer:
        return RestServer(program, archives, directory)

    samples = Samples()
    contenders = [
        Contender(MODELSERVER, "1", None, nothing, launch_infer=launch, infers=infers),
        Contender("prototype", "1", None, nothing),
    ]
    KserveBench(contenders, Plan((), rounds=2, duration=1, warm_up=1), directory, samples, lambda line: None).run()
    return samples


@needs_wrk
def test_what_a_server_can_do_is_measured(standin_program: Path, archives: Archives, tmp_path: Path) -> None:
    samples = run(standin_program, archives, tmp_path, KSERVE[:2])
    for name in KSERVE[:2]:
        assert len(samples.values[MODELSERVER][kserve_figure(name, RATE)]) == 2
    assert TENSOR_OVER_RAW not in samples.values[MODELSERVER]
    assert not samples.void and set(samples.values) == {MODELSERVER}


@needs_wrk
def test_a_server_that_refuses_is_left_out(standin_program: Path, archives: Archives, tmp_path: Path) -> None:
    """The stand-in takes no bodies of that size."""
    samples = run(standin_program, archives, tmp_path, KSERVE[2:])
    (void,) = samples.void
    assert void.startswith(f"modelserver, KServe: {KSERVE[2]}: 413") and not samples.values


def test_the_requests_carry_the_same_bytes() -> None:
    picture, raw = picture_bytes(), raw_bytes()
    length = int(picture.headers["Inference-Header-Content-Length"])
    (tensor,) = json.loads(picture.body[:length])["inputs"]
    assert tensor["parameters"] == {"binary_data_size": len(PIXELS)} and tensor["shape"] == [1, 3, 224, 224]
    assert picture.body[length:] == raw.body == PIXELS
    assert json.loads(small_json("one", 1).body)["inputs"][0]["data"] == [1, 2, 3, 4]


def test_every_figure_has_its_request_and_triton_all_models_it_is_asked_for() -> None:
    requests = all_requests()
    assert tuple(request.name for request in requests) == KSERVE
    assert {request.deployment for request in requests[:3]} == set(DEPLOYMENTS)


def test_a_body_of_any_bytes_lies_beside_its_script(tmp_path: Path) -> None:
    write_body_script(tmp_path / "script.lua", {"A": "b"}, b"\0\xff")
    assert (tmp_path / "script.body").read_bytes() == b"\0\xff"
    lines = (tmp_path / "script.lua").read_text().splitlines()
    assert lines[1] == f'wrk.body = io.open("{tmp_path}/script.body", "rb"):read("*a")'
    assert lines[2] == 'wrk.headers["A"] = "b"'


def test_triton_gets_a_model_for_every_configuration(tmp_path: Path) -> None:
    server = TritonServer(tmp_path / "nowhere", tmp_path / "run")
    repository = server.repository()
    try:
        for deployment in DEPLOYMENTS:
            model = repository / deployment.model
            source = (MODELS / f"{deployment.handler.name}.py").read_text()
            assert (model / "1" / "model.py").read_text() == source
            config = (model / "config.pbtxt").read_text()
            assert 'backend: "python"' in config and f"max_batch_size: {deployment.batch}\n" in config
            assert ("max_queue_delay_microseconds: 5000" in config) == (deployment.batch > 1)
    finally:
        shutil.rmtree(repository.parent)
