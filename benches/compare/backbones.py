"""Latency of backbones in PyTorch, ONNX Runtime, OpenVINO and nomaly, alternating in one run.

    pip install torch torchvision timm onnx onnxruntime openvino
    cargo build --release
    python benches/compare/backbones.py --nomaly target/release/nomaly [--rounds 5] [--calls 10] [--threads 2,1]
        [--models resnet18,efficientnet-lite0] [--batches 1,8] [--peers torch,openvino] [--json FILE]

f32 on the CPU, from the normalised images in memory to the mean of the last feature map: all layers but the classifier,
on both sides. Weights are random (the speed does not depend on them), batch norm is in inference mode.

Every peer is a process that stays alive; nomaly is a process each turn. In each round every side has one turn of two
untimed and `--calls` timed calls, in an order that rotates from round to round, so that a drift of the machine meets all
sides. A cell of the table is the median over the rounds of a turn's median, then the fastest call of all, in ms for the
whole batch. The ratios are the fastest peer's figure over nomaly's, of medians and of fastest calls: above 1, nomaly is
faster.

torch: eager, inference mode, in the default memory format and in channels_last. onnxruntime: all graph optimisations,
intra-op threads as asked. openvino: hint LATENCY, one stream, f32.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Our name of the backbone: the side of its images.
MODELS = {
    "resnet18": 224,
    "wide-resnet50-2": 224,
    "efficientnet-lite0": 224,
    "efficientnet-b4-torchvision": 380,
}
PEERS = ["torch", "torch-channels-last", "onnxruntime", "openvino"]
OURS = "nomaly"
WARM_UP = 2
REST = 0.1  # seconds between turns, in which the thread pools of the side before go to sleep


def build(name: str):
    """The peer's network without its classifier: it ends with the mean of the last feature map."""
    import timm
    import torch
    import torchvision

    torch.manual_seed(0)
    match name:
        case "efficientnet-lite0":
            model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0, exportable=True)
        case "efficientnet-b4-torchvision":
            model = torchvision.models.efficientnet_b4(weights=None)
            model.classifier = torch.nn.Identity()
        case _:
            model = getattr(torchvision.models, name.replace("-", "_"))(weights=None)
            model.fc = torch.nn.Identity()
    return model.eval()


def export(folder: Path, models: list[str], batches: list[int]) -> None:
    import torch

    for name in models:
        model = build(name)
        for batch in batches:
            example = torch.zeros(batch, 3, MODELS[name], MODELS[name])
            torch.onnx.export(
                model, (example,), folder / f"{name}-{batch}.onnx", opset_version=17, dynamo=False,
                input_names=["x"], output_names=["y"],
            )  # fmt: skip


def load(peer: str, threads: int, folder: Path, name: str, batch: int):
    """A function of no arguments that runs one batch."""
    import numpy as np

    images = np.random.default_rng(0).standard_normal((batch, 3, MODELS[name], MODELS[name]), dtype=np.float32)
    path = str(folder / f"{name}-{batch}.onnx")
    if peer == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"x": images})
    if peer == "openvino":
        import openvino

        config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        config["INFERENCE_PRECISION_HINT"] = "f32"
        request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()
        return lambda: request.infer({0: images})

    import torch

    torch.set_num_threads(threads)
    model, tensor = build(name), torch.from_numpy(images)
    if peer == "torch-channels-last":
        model, tensor = (thing.to(memory_format=torch.channels_last) for thing in (model, tensor))

    def run():
        with torch.inference_mode():
            model(tensor)

    return run


def work(peer: str, threads: int, folder: Path) -> None:
    """Answers each line `{"model", "batch", "calls"}` on stdin with a line of milliseconds on stdout."""
    loaded, run = None, None
    for line in sys.stdin:
        turn = json.loads(line)
        case = (turn["model"], turn["batch"])
        if case != loaded:
            run = None  # frees the network before
            loaded, run = case, load(peer, threads, folder, *case)
        times = []
        for _ in range(WARM_UP + turn["calls"]):
            began = time.perf_counter()
            run()
            times.append((time.perf_counter() - began) * 1e3)
        print(json.dumps(times[WARM_UP:]), flush=True)


class Peer:
    """A peer in a process of its own."""

    def __init__(self, name: str, threads: int, folder: Path):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-W", "ignore", __file__, "--worker", f"{name}:{threads}:{folder}"]
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def turn(self, model: str, batch: int, calls: int) -> tuple[float, float]:
        """Median and minimum of the calls in ms."""
        try:
            print(json.dumps({"model": model, "batch": batch, "calls": calls}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            sys.exit(f"{self.name} ended before {model}")
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.name} failed on {model}, batch {batch}")
        times = json.loads(answer)
        return statistics.median(times), min(times)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """nomaly: a process each turn, which times the network alone."""

    name = OURS

    def __init__(self, program: str, threads: int):
        self.command = [program, "bench", "backbone", "--threads", str(threads), "--no-layers", "--format", "json"]

    def turn(self, model: str, batch: int, calls: int) -> tuple[float, float]:
        options = ["--backbone", model, "--batch", str(batch), "--repeats", str(calls)]
        options += ["--input-size", str(MODELS[model]), "--quiet"]
        run = subprocess.run([*self.command, *options], stdout=subprocess.PIPE, text=True)
        if run.returncode:
            sys.exit(f"{OURS} failed on {model}, batch {batch}")
        ms = json.loads(run.stdout)["ms"]
        return ms["median"], ms["min"]

    def close(self) -> None:
        pass


def compare(sides: list, model: str, batch: int, rounds: int, calls: int) -> dict[str, dict[str, float]]:
    turns = {side.name: [] for side in sides}
    for turn in range(rounds):
        first = turn % len(sides)
        for side in sides[first:] + sides[:first]:
            turns[side.name].append(side.turn(model, batch, calls))
            time.sleep(REST)
    return {
        name: {"median": statistics.median(median for median, _ in times), "min": min(low for _, low in times)}
        for name, times in turns.items()
    }


def row(case: dict) -> str:
    sides = case["ms"]
    peers = [name for name in sides if name != OURS]
    cells = [case["model"], str(case["batch"]), str(case["threads"])]
    cells += [f"{figures['median']:.1f} / {figures['min']:.1f}" for figures in sides.values()]
    for figure in ("median", "min"):
        fastest = min(peers, key=lambda name: sides[name][figure])
        cells.append(f"{sides[fastest][figure] / sides[OURS][figure]:.2f} ({fastest})")
    return "| " + " | ".join(cells) + " |"


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def main() -> None:
    def several(text):
        return [word for word in text.split(",") if word]

    def numbers(text):
        return [int(word) for word in several(text)]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nomaly", default="target/release/nomaly", help="the program")
    parser.add_argument("--models", type=several, default=list(MODELS))
    parser.add_argument("--batches", type=numbers, default=[1, 8])
    parser.add_argument("--threads", type=numbers, default=[2, 1])
    parser.add_argument("--peers", type=several, default=PEERS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10, help="timed calls in a turn")
    parser.add_argument("--json", type=Path, help="write the figures into this file too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, known, given in (("model", MODELS, args.models), ("peer", PEERS, args.peers)):
        for unknown in set(given) - set(known):
            parser.error(f"unknown {name} {unknown}: expected some of {', '.join(known)}")

    if args.worker:
        peer, threads, folder = args.worker.split(":", 2)
        return work(peer, int(threads), Path(folder))
    if args.export:
        return export(args.export, args.models, args.batches)

    packages = ("torch", "torchvision", "timm", "onnxruntime", "openvino")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    print(f"{processor()}, {os.cpu_count()} cores; {versions}; {args.rounds} rounds of {args.calls} calls\n")
    print("ms for the whole batch, median / fastest\n")
    headings = ["model", "batch", "threads", *args.peers, OURS, "ratio of medians", "ratio of fastest"]
    print("| " + " | ".join(headings) + " |\n|" + "---|" * len(headings), flush=True)
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        if {"onnxruntime", "openvino"} & set(args.peers):
            batches = ",".join(map(str, args.batches))
            command = [sys.executable, "-W", "ignore", __file__, "--export", folder, "--batches", batches]
            subprocess.run([*command, "--models", ",".join(args.models)], stdout=subprocess.DEVNULL, check=True)
        for threads in args.threads:
            sides = [*(Peer(peer, threads, Path(folder)) for peer in args.peers), Ours(args.nomaly, threads)]
            for model in args.models:
                for batch in args.batches:
                    figures = compare(sides, model, batch, args.rounds, args.calls)
                    cases.append({"model": model, "batch": batch, "threads": threads, "ms": figures})
                    print(row(cases[-1]), flush=True)
            for side in sides:
                side.close()
    if args.json:
        args.json.write_text(json.dumps({"processor": processor(), "versions": versions, "cases": cases}, indent=1))


if __name__ == "__main__":
    main()
