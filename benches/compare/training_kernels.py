"""Single passes of spatial training kernels, in PyTorch and in nomaly, alternating in one run.

    pip install torch
    cargo build --release -p nomaly-bench --bin training_kernels
    python benches/compare/training_kernels.py --nomaly target/release/training_kernels [--threads 2] [--rounds 15] [--only WORD]

Cases are lines:

    conv       images in out size kernel stride padding groups        forward or backward
    transposed images in out size kernel stride padding extra         forward or backward
    pool       max, window or inside; images channels size kernel stride padding
    upsample   nearest, bilinear or corners; images channels size to
    reflect    images channels size padding

The backward pass of a convolution is the gradient of the input and of the weight. Each side is a process of its own;
PyTorch keeps its memory between calls (MALLOC_*_THRESHOLD_), as nomaly does. Convolutions are measured in PyTorch's default and in its channels-last format. A turn is three calls. Prints milliseconds, median / fastest, and
the ratios of PyTorch's faster format to nomaly, of medians and of the fastest calls.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

LITE0 = [(32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 5, 2), (240, 28, 3, 2), (480, 14, 5, 1), (672, 14, 5, 2), (1152, 7, 3, 1)]
CASES = [
    *[f"conv 8 {c} {c} {size} {k} {s} {k // 2} {c}" for c, size, k, s in LITE0],
    "conv 8 128 128 28 3 1 1 32",
    "conv 8 64 64 28 3 1 1 2",
    "conv 8 64 64 28 3 1 1 1",
    # A decoder of an autoencoder.
    "transposed 32 128 64 8 2 2 0 0",
    "transposed 32 64 32 16 3 2 1 1",
    "transposed 32 32 32 32 4 2 1 0",
    "transposed 32 32 32 32 3 1 1 0",
    "transposed 32 64 32 16 5 2 2 1",
    # The generator of DCGAN.
    "transposed 64 100 128 1 4 1 0 0",
    "transposed 64 128 64 4 4 2 1 0",
    "transposed 64 64 32 8 4 2 1 0",
    "transposed 64 32 3 16 4 2 1 0",
    *[f"pool {kind} 32 64 56 {window}" for kind in ("max",) for window in ("2 2 0", "3 2 1")],
    *[f"pool {kind} 32 64 56 {window}" for kind in ("window", "inside") for window in ("2 2 0", "3 1 1")],
    "pool window 8 512 14 3 1 1",
    *[f"upsample {mode} 32 64 {sizes}" for mode in ("nearest", "bilinear", "corners") for sizes in ("16 32", "32 64", "28 50")],
    "reflect 32 64 32 2",
]


def case_of(line: str, layout: str):
    import torch
    from torch.nn import functional as F

    kind, *rest = line.split()
    mode = [w for w in rest if not w.isdigit()]
    n = [int(w) for w in rest if w.isdigit()]
    forward = mode[-1] == "forward"
    shaped = lambda *shape: torch.rand(*shape).mul_(2).sub_(1)
    aten = torch.ops.aten
    if kind in ("conv", "transposed"):
        images, i, o, size, k, stride, padding, last = n
        transposed = kind == "transposed"
        groups, extra = (1, last) if transposed else (last, 0)
        x = shaped(images, i, size, size)
        w = shaped(*((i, o) if transposed else (o, i // groups)), k, k)
        if layout == "channels_last":
            x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))
        options = ([stride] * 2, [padding] * 2, [1, 1], transposed, [extra] * 2, groups)
        run = lambda: aten.convolution(x, w, None, *options)
        y = run()
        if forward:
            return run
        g = torch.rand_like(y)
        return lambda: aten.convolution_backward(g, x, w, None, *options, [True, True, False])
    if kind == "pool":
        images, channels, size, k, stride, padding = n
        x = shaped(images, channels, size, size)
        window = ([k] * 2, [stride] * 2, [padding] * 2)
        if mode[0] == "max":
            run = lambda: aten.max_pool2d_with_indices(x, *window)
            y, places = run()
            g = torch.rand_like(y)
            return run if forward else lambda: aten.max_pool2d_with_indices_backward(g, x, *window, [1, 1], False, places)
        counted = mode[0] == "window"
        run = lambda: aten.avg_pool2d(x, *window, False, counted)
        g = torch.rand_like(run())
        return run if forward else lambda: aten.avg_pool2d_backward(g, x, *window, False, counted, None)
    if kind == "upsample":
        images, channels, size, to = n
        x = shaped(images, channels, size, size)
        g = shaped(images, channels, to, to)
        if mode[0] == "nearest":
            if forward:
                return lambda: aten.upsample_nearest2d(x, [to] * 2)
            return lambda: aten.upsample_nearest2d_backward(g, [to] * 2, x.shape)
        corners = mode[0] == "corners"
        if forward:
            return lambda: aten.upsample_bilinear2d(x, [to] * 2, corners)
        return lambda: aten.upsample_bilinear2d_backward(g, [to] * 2, x.shape, corners)
    images, channels, size, padding = n
    x = shaped(images, channels, size, size)
    g = shaped(images, channels, size + 2 * padding, size + 2 * padding)
    sides = [padding] * 4
    if forward:
        return lambda: aten.reflection_pad2d(x, sides)
    return lambda: aten.reflection_pad2d_backward(g, x, sides)


def worker(layout: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    before, run = None, None
    print("ready", flush=True)
    for line in sys.stdin:
        if line != before:
            before, run = line, case_of(line, layout)
            run(), run()
        began = time.perf_counter()
        run()
        print(time.perf_counter() - began, flush=True)


class Side:
    def __init__(self, command, threads):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        keep = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(1 << 33))
        environment = {**os.environ, **dict.fromkeys(names, str(threads)), **keep}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command[0]} failed")

    def seconds(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nomaly", default="target/release/training_kernels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose line contains this")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.threads)
        return
    python = [sys.executable, __file__, "--threads", str(args.threads), "--worker"]
    sides = {name: Side([*python, name], args.threads) for name in ("default", "channels_last")}
    sides["nomaly"] = Side([args.nomaly], args.threads)
    print("| case | pass | PyTorch | channels last | nomaly | ratio of medians | of fastest |\n|---|---|---|---|---|---|---|")
    for case in CASES:
        for which in ("forward", "backward"):
            line = f"{case} {which}"
            if args.only not in line:
                continue
            names = [name for name in sides if name != "channels_last" or case.startswith(("conv", "transposed"))]
            seconds = {name: [] for name in names}
            for _ in range(args.rounds):
                for name in names:
                    # PyTorch's threads wait actively for some milliseconds after each call.
                    time.sleep(0.03)
                    seconds[name] += [sides[name].seconds(line) for _ in range(3)]
            median = {name: statistics.median(values) for name, values in seconds.items()}
            least = {name: min(values) for name, values in seconds.items()}
            best = [min(of[name] for name in names if name != "nomaly") / of["nomaly"] for of in (median, least)]
            shown = [f"{1e3 * median[name]:.2f} / {1e3 * least[name]:.2f}" if name in median else "" for name in sides]
            print(f"| {case} | {which} | {' | '.join(shown)} | {best[0]:.2f} | {best[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
