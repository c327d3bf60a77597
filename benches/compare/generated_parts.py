"""Made-up parts in the layout of MVTec AD, to see what the size, the shape and the pose of images do to a method.

    pip install numpy pillow
    python generated_parts.py OUT [--seed 0] [--train 60] [--test 30]

OUT/tall     500x1250 pixels: a brushed strip with a weld seam; defects are short cracks 1 pixel wide
OUT/dots     3840x2160 pixels: a matt sheet; defects are dots of 5 pixels
OUT/rotated  512x512 pixels: a toothed disc in any pose; defects are broken teeth and scratches

All pixels are drawn from the seed: nothing is downloaded.
"""
import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def noise(rng, shape, scale):
    """Smooth noise of about unit deviation whose blobs are `scale` = (height, width) pixels."""
    small = rng.standard_normal([max(2, side // step + 2) for side, step in zip(shape, scale)]).astype(np.float32)
    image = Image.fromarray(small, "F").resize((shape[1], shape[0]), Image.BICUBIC)
    return np.asarray(image)


def to_image(values):
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8), "L").convert("RGB")


def crack(rng, draw, mask, start, length, width, shade):
    """A broken line from `start`, drawn into the image and its mask."""
    points, angle = [start], rng.uniform(0, 2 * np.pi)
    for _ in range(6):
        angle += rng.normal(0, 0.5)
        x, y = points[-1]
        points.append((x + length / 6 * np.cos(angle), y + length / 6 * np.sin(angle)))
    draw.line(points, fill=(shade,) * 3, width=width)
    mask.line(points, fill=255, width=width)


def tall(rng, defective):
    shape = (1250, 500)
    seam = 250 + 12 * noise(rng, (1250, 2), (300, 1))[:, :1]
    x = np.arange(500, dtype=np.float32)[None]
    values = 130 + 9 * noise(rng, shape, (120, 2)) + 4 * rng.standard_normal(shape).astype(np.float32)
    values += 35 * np.exp(-(((x - seam) / 14) ** 2)) + rng.uniform(-8, 8)
    image, mask = to_image(values), Image.new("L", shape[::-1])
    if defective:
        start = (rng.uniform(40, 460), rng.uniform(60, 1190))
        length, shade = rng.uniform(20, 40), int(rng.uniform(85, 100))
        crack(rng, ImageDraw.Draw(image), ImageDraw.Draw(mask), start, length, 1, shade)
    return image, mask


def dots(rng, defective):
    shape = (2160, 3840)
    values = 150 + 6 * noise(rng, shape, (90, 90)) + 4 * noise(rng, shape, (5, 5)) + rng.uniform(-6, 6)
    image, mask = to_image(values), Image.new("L", shape[::-1])
    if defective:
        for _ in range(3):
            x, y = rng.uniform(100, 3740), rng.uniform(100, 2060)
            box = [x - 2.5, y - 2.5, x + 2.5, y + 2.5]
            ImageDraw.Draw(image).ellipse(box, fill=(40,) * 3)
            ImageDraw.Draw(mask).ellipse(box, fill=255)
    return image, mask


def rotated(rng, defective):
    side, scale = 512, 2
    image, mask = Image.new("L", (side * scale,) * 2, 45), Image.new("L", (side * scale,) * 2)
    draw, drawn = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    cx, cy = (side * scale / 2 + rng.uniform(-40, 40) for _ in range(2))
    turn, teeth = rng.uniform(0, 2 * np.pi), 14
    broken = int(rng.integers(teeth)) if defective and rng.random() < 0.5 else None

    def spot(radius, angle):
        return (cx + radius * np.cos(turn + angle), cy + radius * np.sin(turn + angle))

    draw.ellipse([cx - 300, cy - 300, cx + 300, cy + 300], fill=150)
    for tooth in range(teeth):
        middle, half = 2 * np.pi * tooth / teeth, 0.13
        base, tip = (290, half), (360, half * 0.8)
        corners = [spot(r, middle + side * h) for side, (r, h) in ((-1, base), (-1, tip), (1, tip), (1, base))]
        draw.polygon(corners, fill=150)
        if tooth == broken:
            ends = ((330, -half), (365, -half), (365, half), (322, half))
            part = [spot(radius, middle + angle) for radius, angle in ends]
            draw.polygon(part, fill=45)
            drawn.polygon(part, fill=255)
    draw.ellipse([cx - 60, cy - 60, cx + 60, cy + 60], fill=45)
    for hole in range(5):
        x, y = spot(180, 2 * np.pi * hole / 5)
        draw.ellipse([x - 28, y - 28, x + 28, y + 28], fill=45)
    if defective and broken is None:
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(90, 250)
        start, to = spot(radius, angle), spot(radius + rng.uniform(-50, 50), angle + rng.uniform(0.15, 0.3))
        draw.line([start, to], fill=100, width=4)
        drawn.line([start, to], fill=255, width=4)
    image, mask = (each.resize((side, side), Image.LANCZOS) for each in (image, mask))
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), np.float32)
    values = values + 3 * rng.standard_normal((side, side)) + 3 * noise(rng, (side, side), (60, 60))
    return to_image(values), mask.point(lambda value: 255 if value > 127 else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--test", type=int, default=30)
    args = parser.parse_args()
    for number, part in enumerate((tall, dots, rotated)):
        rng = np.random.default_rng([args.seed, number])
        root = args.out / part.__name__
        # Large sheets are stored as cameras store them.
        ending = "jpg" if part is dots else "png"
        parts = (("train/good", args.train, False), ("test/good", args.test, False), ("test/defect", args.test, True))
        for folder, count, defective in parts:
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                image, mask = part(rng, defective)
                image.save(root / folder / f"{index:03}.{ending}", **({"quality": 92} if ending == "jpg" else {}))
                if defective:
                    truth = root / "ground_truth/defect"
                    truth.mkdir(parents=True, exist_ok=True)
                    mask.save(truth / f"{index:03}_mask.png")


if __name__ == "__main__":
    main()
