"""Processes that stay alive and are timed in turn; for the scripts beside this one.

A process prints `ready` after its warm-up, and then, for each line on standard input, a line that begins with the seconds
of one run.
"""

import os
import statistics
import subprocess
import sys
import time

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def serve(run) -> None:
    """Is such a process: `run` does the work, and may return something to be printed behind the seconds."""
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        result = run()
        print(time.perf_counter() - began, "" if result is None else result, flush=True)


class Side:
    """Such a process, by its command."""

    def __init__(self, command, threads):
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.seconds = []
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command[0]} failed")

    def run(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.process.stdout.readline().split()[0]))

    def close(self):
        self.process.stdin.close()
        _, _, usage = os.wait4(self.process.pid, 0)
        self.peak = usage.ru_maxrss / 1024


def compare(what: str, commands: dict, threads: int, rounds: int) -> None:
    """Times the commands in turn and prints the medians, the least, and how much slower the best of the others is than
    `nomaly`."""
    sides = {name: Side(command, threads) for name, command in commands.items()}
    for _ in range(rounds):
        for side in sides.values():
            side.run()
    for side in sides.values():
        side.close()
    for statistic, of in (("median", statistics.median), ("least", min)):
        times = {name: 1000 * of(side.seconds) for name, side in sides.items()}
        best = min(value for name, value in times.items() if name != "nomaly")
        listed = ", ".join(f"{name} {value:.2f} ms" for name, value in times.items())
        print(f"{what}, {threads} threads, {statistic}: {listed}; ratio {best / times['nomaly']:.2f}")
    print("peak memory: " + ", ".join(f"{name} {side.peak:.0f} MiB" for name, side in sides.items()), flush=True)
