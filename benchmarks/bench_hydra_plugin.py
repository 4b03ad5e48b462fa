"""What our Hydra plugin costs a Hydra application that has nothing to do with open-metric-learning.

The same application runs as a whole process with the plugin and with it hidden, in turns; the ratio of the medians is
the cost. ``python benchmarks/bench_hydra_plugin.py``
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

APPLICATION = """
import sys, types
if {hidden}:
    sys.modules["hydra_plugins.oml_vit_ext"] = types.ModuleType("hydra_plugins.oml_vit_ext")
import hydra

@hydra.main(config_path=None, version_base="1.1")
def main(cfg):
    from hydra.core.plugins import Plugins
    times = Plugins.instance().get_stats().modules_import_time
    print("plugin_ms", 1000 * times.get("hydra_plugins.oml_vit_ext", 0.0))

main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="runs with and without the plugin, each")
    args = parser.parse_args()

    seconds: dict[bool, list[float]] = {True: [], False: []}
    plugin_ms: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.runs + 1):  # the first pair warms the file cache
            for hidden in (True, False):
                started = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-W", "ignore", "-c", APPLICATION.format(hidden=hidden)],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                seconds[hidden].append(time.perf_counter() - started)
                if not hidden:
                    plugin_ms.append(float(done.stdout.split()[-1]))
    without, with_plugin = (statistics.median(seconds[hidden][1:]) for hidden in (True, False))
    print(f"Hydra application, median of {args.runs}: {without:.3f} s without, {with_plugin:.3f} s with the plugin")
    print(f"ratio {with_plugin / without:.3f}; Hydra's own clock: {statistics.median(plugin_ms[1:]):.2f} ms to load it")


if __name__ == "__main__":
    main()
