"""Script: prints the metrics of the host, then the memory of the processes that its input names."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def main() -> None:
    """Run the script."""
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]  # put there for a script
    from ts.metrics import system_metrics
    from ts.metrics.process_memory_metric import check_process_mem_usage

    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", type=int, default=0, help="number of GPUs")
    system_metrics.collect_all(system_metrics, parser.parse_args().gpu)
    check_process_mem_usage(sys.stdin)


if __name__ == "__main__":
    main()
