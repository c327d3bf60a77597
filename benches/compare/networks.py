"""The networks of `benches/src/networks.rs` in PyTorch."""

import torch
from torch import nn


def double(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [32 << level for level in range(5)]
        self.down = nn.ModuleList(double(a, b) for a, b in zip([3, *widths], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[:4])
        self.join = nn.ModuleList(double(2 * width, width) for width in widths[:4])
        self.last = nn.Conv2d(32, 3, 1)

    def forward(self, x):
        skips = []
        for level in range(4):
            x = self.down[level](x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.down[4](x)
        for level in (3, 2, 1, 0):
            x = self.join[level](torch.cat([skips[level], self.up[level](x)], 1))
        return self.last(x)


def generator(width: int) -> nn.Sequential:
    layers, inputs = [], 100
    for level, channels in enumerate((4 * width, 2 * width, width)):
        stride, padding = (2, 1) if level else (1, 0)
        layers += [nn.ConvTranspose2d(inputs, channels, 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        inputs = channels
    return nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, 2, 1, bias=False), nn.Tanh())


def critic(width: int) -> nn.Sequential:
    layers, inputs = [], 3
    for level, channels in enumerate((width, 2 * width, 4 * width)):
        layers += [nn.Conv2d(inputs, channels, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(channels)] if level else []
        layers += [nn.LeakyReLU(0.2, inplace=True)]
        inputs = channels
    return nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, 1, 0, bias=False))


def transposed() -> nn.Sequential:
    layers, inputs = [], 128
    for channels in (64, 32, 3):
        layers += [nn.ConvTranspose2d(inputs, channels, 4, 2, 1), nn.ReLU(inplace=True)]
        inputs = channels
    return nn.Sequential(*layers[:-1])


def in_format(layout: str, *of):
    """Modules or tensors in a memory format, `default` or `channels_last`."""
    return [one.to(memory_format=torch.channels_last) for one in of] if layout == "channels_last" else list(of)
