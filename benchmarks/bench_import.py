"""What ``import oml_vit_ext`` costs beside the import of the OML registries that it fills, and how soon help is there.

Whole processes, in turns; the ratio of the medians is the cost. ``python benchmarks/bench_import.py``
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

OML = "import oml.registry, oml.registry.postprocessors"
OURS = f"{OML}\nimport oml_vit_ext"
HEAVY = ["faiss", "matplotlib", "pymilvus", "pytorch_metric_learning", "scipy", "sklearn", "timm"]
HELP = "from oml_vit_ext.commands.main import app\ntry:\n    app(['train', '--help'])\nexcept SystemExit:\n    pass"
REPORT = f"\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="processes of each kind")
    args = parser.parse_args()

    costs: dict[str, list[tuple[float, float]]] = {OML: [], OURS: [], HELP: []}
    loaded: dict[str, str] = {}
    for _ in range(args.runs + 1):  # the first of each warms the file cache
        for code, rows in costs.items():
            seconds, printed = run(code + REPORT)
            rows.append(seconds)
            loaded[code] = printed
    for code, name in ((OML, "OML's registries"), (OURS, "with oml_vit_ext")):
        wall, cpu = medians(costs[code])
        print(f"{name}, median of {args.runs}: {wall:.2f} s, {cpu:.2f} s of CPU; loaded: {loaded[code]}")
    print(f"oml-vit-ext train --help: {medians(costs[HELP])[0]:.2f} s, {medians(costs[HELP])[1]:.2f} s of CPU")
    ratio_wall, ratio_cpu = (ours / oml for ours, oml in zip(medians(costs[OURS]), medians(costs[OML]), strict=True))
    print(f"ratio {ratio_wall:.3f}, of CPU time {ratio_cpu:.3f} (the one that a busy machine disturbs least)")


def run(code: str) -> tuple[tuple[float, float], str]:
    """Seconds, seconds of CPU and output of a process that executes ``code``."""
    before, started = cpu_of_children(), time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return (time.perf_counter() - started, cpu_of_children() - before), done.stdout.strip()


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def medians(rows: list[tuple[float, float]]) -> tuple[float, float]:
    wall, cpu = zip(*rows[1:], strict=True)
    return statistics.median(wall), statistics.median(cpu)


if __name__ == "__main__":
    main()
