"""The end of a model version leaves no request without an answer."""

from __future__ import annotations

import asyncio

from harness.scene import Scene, scenario, settle
from modelserver.errors import Cause, Certificate


@scenario()
async def test_what_a_killed_worker_had_not_read_is_refused(scene: Scene) -> None:
    """It would run on another worker, if there were to be one."""
    (worker,) = await scene.grow(1)
    job = scene.submit()
    worker.killed = Certificate(Cause.STOPPED, "its end comes below")  # so that it does not die by itself
    drained = asyncio.ensure_future(scene.version.drain(0))
    await settle()
    worker.die(worker.killed, unread=1)
    await drained
    assert (await asyncio.wait_for(scene.error_of(job), 1)).status == 503
