"""Envelope `kfservingv2`: an older name of `kservev2`."""

from __future__ import annotations

from ts.torch_handler.request_envelope.kservev2 import KServev2Envelope


class KFservingv2Envelope(KServev2Envelope):
    """The same under the name that older deployments use."""
