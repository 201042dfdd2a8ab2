"""A stateful model version whose workers take requests in while others run."""

from __future__ import annotations

from modelserver.engine.continuous_sequences import ContinuousSequenceScheduler
from modelserver.engine.continuous_version import ContinuousVersion
from modelserver.engine.sequence_version import SequenceVersion


class ContinuousSequenceVersion(SequenceVersion, ContinuousVersion):
    """Knows of sequences what the one base class knows, and of steps what the other one does."""

    scheduler: ContinuousSequenceScheduler
