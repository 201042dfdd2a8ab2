"""From the parameters of a registration, wherever they stand, to the registration."""

from __future__ import annotations

from typing import Protocol

from modelserver.engine.requests import Registration
from modelserver.errors import BadRequest

_RUNTIMES = ("python", "python3", "LSP")


class Parameters(Protocol):
    """Values by name."""

    def text(self, name: str) -> str | None:
        """The value as text; None if it is not given."""

    def integer(self, name: str) -> int | None:
        """The value as a number; None if it is not given."""

    def boolean(self, name: str, *, default: bool) -> bool:
        """The value as a boolean."""


def parse_registration(parameters: Parameters) -> Registration:
    """A registration from its parameters. Raises BadRequest."""
    url = parameters.text("url")
    if url is None:
        raise BadRequest("Parameter url is required.")
    name = parameters.text("model_name") or None
    runtime = parameters.text("runtime")
    if runtime is not None and runtime not in _RUNTIMES:
        raise BadRequest(f"Invalid RuntimeType value: {runtime}")
    return Registration(
        url=url,
        model_name=name,
        handler=parameters.text("handler") or None,
        runtime=runtime,
        batch_size=_unless(parameters.integer("batch_size"), -1),
        max_batch_delay=_unless(parameters.integer("max_batch_delay"), -100),
        initial_workers=parameters.integer("initial_workers"),
        response_timeout=_unless(parameters.integer("response_timeout"), -1),
        startup_timeout=_unless(parameters.integer("startup_timeout"), -1),
        synchronous=parameters.boolean("synchronous", default=True),
        s3_sse_kms=parameters.boolean("s3_sse_kms", default=False),
    )


def _unless(value: int | None, unset: int) -> int | None:
    """TorchServe's numbers for "not given" mean just that."""
    return None if value == unset else value
