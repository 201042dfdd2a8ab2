"""Models of the start are waited for once."""

from __future__ import annotations

from harness.scene import Scene, scenario, settle
from modelserver.engine.start_up import StartUp
from modelserver.errors import Cause, Certificate


@scenario(initial_workers=2)
async def test_until_as_many_workers_have_loaded_as_it_is_to_have(scene: Scene) -> None:
    scene.port.manual = True
    first, second = await scene.grow(2)
    start_up = StartUp([scene.version])
    first.load()
    assert start_up.awaited() == ["m 1.0 (workers are loading)"]
    second.load()
    assert start_up.awaited() == []


@scenario(initial_workers=1)
async def test_what_was_ready_once_does_not_count_again(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    start_up = StartUp([scene.version])
    assert start_up.awaited() == []
    scene.port.manual = True
    worker.die()
    await settle()
    assert not scene.version.status(loaded_at_startup=True).workers[0].ready
    assert start_up.awaited() == []


@scenario(initial_workers=1)
async def test_reasons(scene: Scene) -> None:
    scene.port.manual = True
    (worker,) = await scene.grow(1)
    start_up = StartUp([scene.version], ["other.mar"])
    worker.die(Certificate(Cause.INITIALIZE, "no weights"))
    await settle()
    assert start_up.awaited() == ["other.mar (not registered)", "m 1.0 (no weights)"]
    start_up.forget(scene.version)
    assert start_up.awaited() == ["other.mar (not registered)"]


@scenario(initial_workers=0)
async def test_a_model_that_is_to_have_no_workers_is_not_waited_for(scene: Scene) -> None:
    scene.version.min_workers = 0
    assert StartUp([scene.version]).awaited() == []
