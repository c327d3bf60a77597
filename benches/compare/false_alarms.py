"""How many false alarms rules set to 1 % raise on good images that no model has seen.

usage: false_alarms.py NOMALY FOLDER_OF_SETS [--method mvg] [--rate 0.01] [--rules conformal,quantile,extreme-value]
                       [--tested 3]

NOMALY is the release binary. Every folder in FOLDER_OF_SETS holds the good images of one data set (see `collect` below for
those of the table in docs/methods.md). The images are dealt into three parts by a fixed seed; each part is scored by a
model fitted on the other two, so every image is tested once, by a model and a threshold that come from other images;
`--tested 1` tests the first part only. The interval is Clopper and Pearson's.

    false_alarms.py --collect FOLDER_OF_SETS MAGNETIC_TILE CIFAR_SUBSET MNIST_IDX_FOLDER [ELPV_WHEEL]

makes the folders: normal magnetic tiles (train and test), one class of the CIFAR-10 subset, one digit of MNIST's test
set, and the certain good monocrystalline cells of ELPV. Needs Pillow, and SciPy for the interval.
"""

import argparse
import csv
import gzip
import io
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile

PARTS, SEED = 3, 0


def collect(root, tiles, cifar, mnist, elpv=None):
    from PIL import Image
    root = pathlib.Path(root)

    def fresh(name):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    to = fresh("magnetic_tile")
    for part in ("train", "test"):
        for path in sorted((pathlib.Path(tiles) / part / "good").iterdir()):
            shutil.copy(path, to / f"{part}-{path.name}")
    to = fresh("cifar10-automobile")
    for part in ("train", "test"):
        for path in sorted((pathlib.Path(cifar) / part / "automobile").iterdir()):
            shutil.copy(path, to / f"{part}-{path.name}")
    to = fresh("mnist-3")
    labels = gzip.open(pathlib.Path(mnist) / "t10k-labels-idx1-ubyte.gz").read()[8:]
    pixels = gzip.open(pathlib.Path(mnist) / "t10k-images-idx3-ubyte.gz").read()[16:]
    for number, label in enumerate(labels):
        if label == 3:
            Image.frombytes("L", (28, 28), pixels[number * 784:(number + 1) * 784]).save(to / f"{number:05}.png")
    if elpv:
        to = fresh("elpv-mono")
        with zipfile.ZipFile(elpv) as wheel:
            table = next(name for name in wheel.namelist() if name.endswith("labels.csv"))
            base = table.rsplit("/", 1)[0]
            for row in csv.reader(io.TextIOWrapper(wheel.open(table))):
                path, chance, kind = row[0].split() if len(row) == 1 else [cell.strip() for cell in row[:3]]
                if kind == "mono" and float(chance) == 0.0:
                    (to / pathlib.Path(path).name).write_bytes(wheel.read(f"{base}/{path}"))


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def false_alarms(nomaly, folder, method, rate, rules, tested):
    """The number of tested images, and for each rule the number of alarms among them."""
    images = sorted(folder.iterdir())
    random.Random(SEED).shuffle(images)
    count, alarms = 0, dict.fromkeys(rules, 0)
    for part in range(tested):
        test = images[part::PARTS]
        count += len(test)
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            (scratch / "train").mkdir()
            for path in images:
                if path not in test:
                    (scratch / "train" / path.name).symlink_to(path.resolve())
            model = scratch / "model.nomaly"
            run(nomaly, "fit", scratch / "train", "-o", model, "--method", method, "--max-fpr", rate, "--quiet")
            for rule in rules:
                # The rule of the model is the conformal one.
                chosen = [] if rule == "conformal" else ["--rule", rule]
                chosen += [] if rule == "three-sigma" else ["--max-fpr", rate]
                text = run(nomaly, "score", *test, "-m", model, "--format", "jsonl", "--quiet", *chosen)
                alarms[rule] += sum(json.loads(line)["anomalous"] for line in text.splitlines())
    return count, alarms


def main():
    if "--collect" in sys.argv:
        return collect(*[argument for argument in sys.argv[1:] if argument != "--collect"])
    from scipy.stats import binomtest
    parser = argparse.ArgumentParser()
    parser.add_argument("nomaly")
    parser.add_argument("sets", type=pathlib.Path)
    parser.add_argument("--method", default="mvg")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--rules", default="conformal,quantile,extreme-value")
    parser.add_argument("--tested", type=int, default=PARTS, choices=range(1, PARTS + 1))
    args = parser.parse_args()
    print("| data set | rule | good test images | false alarms | rate | 95 % binomial interval |")
    print("|---|---|---|---|---|---|")
    for folder in sorted(path for path in args.sets.iterdir() if path.is_dir()):
        count, alarms = false_alarms(args.nomaly, folder, args.method, args.rate, args.rules.split(","),
                                     args.tested)
        for rule, number in alarms.items():
            ends = binomtest(number, count).proportion_ci(0.95, method="exact")
            print(f"| {folder.name} | {rule} | {count} | {number} | {100 * number / count:.1f} % |"
                  f" {100 * ends.low:.1f} to {100 * ends.high:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
