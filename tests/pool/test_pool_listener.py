"""The socket that workers connect to, when somebody removes it."""

from __future__ import annotations

import shutil
from pathlib import Path

from pool_stage import ECHO, Model, environment, pool_of, run

from modelserver.pool.nursery import Nursery


def test_a_removed_socket_is_made_anew_for_the_next_worker(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            first = Model(pool, tmp_path / "a", ECHO)
            serving = await first.load(slot=1)
            (socket,) = (tmp_path / "tmp").glob("ms-*/w")
            socket.unlink()
            second = Model(pool, tmp_path / "b", ECHO)
            assert await second.ask(await second.load(slot=2), b"second") == b"second"
            shutil.rmtree(socket.parent)
            third = Model(pool, tmp_path / "c", ECHO)
            assert await third.ask(await third.load(slot=3), b"third") == b"third"
            assert await first.ask(serving, b"first") == b"first", "who has connected is not touched"

    run(main(Nursery.launch(environment(tmp_path))))
