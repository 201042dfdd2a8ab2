"""Envelope `kfserving`: an older name of `kserve`."""

from __future__ import annotations

from ts.torch_handler.request_envelope.kserve import KServeEnvelope


class KFservingEnvelope(KServeEnvelope):
    """The same under the name that older deployments use."""
