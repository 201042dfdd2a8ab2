"""Each file is collected only where its client is installed: `make test-clients` makes those environments."""

from __future__ import annotations

from importlib.util import find_spec

from clients.environments import SETS

LIBRARIES = {"triton": "tritonclient", "kserve": "kserve", "kserve-wrapper": "kserve"}  # by the name of the set
collect_ignore = [test for each in SETS if find_spec(LIBRARIES[each.name]) is None for test in each.tests]
