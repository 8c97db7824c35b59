"""Split autoencoders: one encoder and one decoder per modality, every pair of them joined through the embedding.

Shapes: B windows, T samples, C channels, frames of (Y, X) pixels, H hidden width, D embedding width.
An encoder maps a normalised window (B, T, C) or (B, T, Y, X) to its hidden layer (B, H) and its embedding (B, D).
A decoder maps any modality's embedding (B, D) back to a window of its own modality.
H and D are the federation's; everything before the hidden layer is the device's own choice (`architecture`).
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mekt.modality import Modality
from mekt.plan import Architecture, Plan, derived_seed

CONV_CHANNELS = (32, 64, 64)
NARROW_CHANNELS = (16, 32, 32)
CONV_KERNELS = (7, 5, 3)
FRAME_CHANNELS = (8, 16, 16)
# With 36, learning Kinect frames of 48 x 64 takes under 200,000 parameters at the usual widths, decoder included.
FRAME_FEATURES = 36
# What moves is a few hundredths of what frames of a standing camera show: it is seen apart, this much larger.
MOTION_GAIN = 5.0
# What an "ordered" encoder averages its features over one by one: a window's beginning, middle and end.
STRETCHES = 3
# A rebuilt frame's features. On UTD-MHAD's depth 24 rebuild test frames as well as 64 do (0.217 and 0.216 of the
# variance, two seeds) with 0.38 of the parameters.
FRAME_STEP_FEATURES = 24
FRAME_TIME_KERNEL = 5
LSTM_WIDTH = 64
LSTM_LAYERS = 2
DECODER_WIDTH = 128
# Contrasted are not the embeddings themselves but what a small network, that only learning needs, makes of them.
PROJECTOR_WIDTH = 128
PROJECTED = 64
# Torch draws first weights from a state that all threads share.
_DRAWING = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSizes:
    """All that fixes an encoder's structure; beside the weights it is all a checkpoint or an export needs."""

    architecture: Architecture
    shape: tuple[int, ...]
    hidden: int
    embedding: int


class Encoder(nn.Module):
    """A backbone of its own, then the hidden layer and the embedding that the federation shares."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.backbone = _backbone(sizes)
        self.to_hidden = nn.Linear(self.backbone.width, sizes.hidden)
        self.to_embedding = nn.Linear(sizes.hidden, sizes.embedding)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden layer (B, H) and embedding (B, D) of windows x: (B, T, C) or (B, T, Y, X)."""
        hidden_BH = torch.relu(self.to_hidden(self.backbone(x)))
        return hidden_BH, self.to_embedding(hidden_BH)


class SignalConv(nn.Module):
    """Three strided convolutions over time, then means over stretches and the maximum: (B, T, C) -> (B, width)."""

    def __init__(self, channels: int, narrow: bool = False, stretches: int = 1) -> None:
        super().__init__()
        widths = (channels, *(NARROW_CHANNELS if narrow else CONV_CHANNELS))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], kernel, stride=2, padding=kernel // 2)
            for i, kernel in enumerate(CONV_KERNELS)
        )
        self.stretches = stretches
        self.width = (stretches + 1) * widths[-1]

    def forward(self, x_BTC: Tensor) -> Tensor:
        # As images one pixel high with the channels last, which takes 0.7 of conv1d's time on a CPU.
        x_BC1T = x_BTC.transpose(1, 2).unsqueeze(2).contiguous(memory_format=torch.channels_last)
        for each in self.convolutions:
            assert isinstance(each, nn.Conv1d)
            padding = (0, each.kernel_size[0] // 2)
            x_BC1T = torch.relu(functional.conv2d(x_BC1T, each.weight.unsqueeze(2), each.bias, (1, 2), padding))
        return pooled_over_time(x_BC1T.squeeze(2), self.stretches)


class SignalLstm(nn.Module):
    """The paper's encoder: a two-layer LSTM, its last hidden state: (B, T, C) -> (B, width)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, LSTM_WIDTH, num_layers=LSTM_LAYERS, batch_first=True)
        self.width = LSTM_WIDTH

    def forward(self, x_BTC: Tensor) -> Tensor:
        last_LBH: Tensor = self.lstm(x_BTC)[1][0]
        return last_LBH[-1]


class FrameConv(nn.Module):
    """Three strided convolutions per frame, one over time, means over stretches, maximum: (B, T, Y, X) -> (B, width).

    A frame is seen as it is, and as it differs from the window's mean frame.
    """

    def __init__(self, shape: tuple[int, int], stretches: int = 1) -> None:
        super().__init__()
        widths = (2, *FRAME_CHANNELS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1) for i in range(len(FRAME_CHANNELS))
        )
        self.to_features = nn.Linear(widths[-1] * _shrunk(shape[0]) * _shrunk(shape[1]), FRAME_FEATURES)
        self.over_time = nn.Conv1d(FRAME_FEATURES, FRAME_FEATURES, FRAME_TIME_KERNEL, padding=FRAME_TIME_KERNEL // 2)
        self.stretches = stretches
        self.width = (stretches + 1) * FRAME_FEATURES

    def forward(self, x_BTYX: Tensor) -> Tensor:
        motion_BTYX = (x_BTYX - x_BTYX.mean(dim=1, keepdim=True)) * MOTION_GAIN
        frames: Tensor = torch.stack([x_BTYX, motion_BTYX], dim=2).flatten(0, 1)
        for convolution in self.convolutions:
            frames = torch.relu(convolution(frames))
        features = torch.relu(self.to_features(frames.flatten(1)))
        x_BFT = features.reshape(x_BTYX.shape[0], x_BTYX.shape[1], -1).transpose(1, 2)
        return pooled_over_time(torch.relu(self.over_time(x_BFT)), self.stretches)


class SignalDecoder(nn.Module):
    """Embedding (B, D) -> window (B, T, C) through one wide layer."""

    def __init__(self, embedding: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.window = window
        self.layers = nn.Sequential(
            nn.Linear(embedding, DECODER_WIDTH), nn.ReLU(), nn.Linear(DECODER_WIDTH, window[0] * window[1])
        )

    def forward(self, z_BD: Tensor) -> Tensor:
        out: Tensor = self.layers(z_BD)
        return out.reshape(-1, *self.window)


class LstmDecoder(nn.Module):
    """The paper's decoder: the embedding repeated over time through an LSTM: (B, D) -> (B, T, C)."""

    def __init__(self, embedding: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.window = window
        self.lstm = nn.LSTM(embedding, LSTM_WIDTH, batch_first=True)
        self.to_sample = nn.Linear(LSTM_WIDTH, window[1])

    def forward(self, z_BD: Tensor) -> Tensor:
        states_BTH, _ = self.lstm(z_BD.unsqueeze(1).expand(-1, self.window[0], -1))
        out: Tensor = self.to_sample(states_BTH)
        return out


class FrameDecoder(nn.Module):
    """Embedding (B, D) -> frames (B, T, Y, X): features per time step, then two transposed convolutions."""

    def __init__(self, embedding: int, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.window = window
        time, height, width = window
        self.small = (8, -(-height // 4), -(-width // 4))
        self.to_steps = nn.Linear(embedding, time * FRAME_STEP_FEATURES)
        self.to_small = nn.Linear(FRAME_STEP_FEATURES, self.small[0] * self.small[1] * self.small[2])
        self.up = nn.ConvTranspose2d(self.small[0], 8, 4, stride=2, padding=1)
        self.to_frame = nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1)

    def forward(self, z_BD: Tensor) -> Tensor:
        time, height, width = self.window
        steps = torch.relu(self.to_steps(z_BD)).reshape(-1, FRAME_STEP_FEATURES)
        small = torch.relu(self.to_small(steps)).reshape(-1, *self.small)
        frames: Tensor = self.to_frame(torch.relu(self.up(small)))[:, 0, :height, :width]
        return frames.reshape(-1, time, height, width)


class SplitAutoencoder(nn.Module):
    """Encoders and decoders of the modalities that a device, or the coordinator, has; projectors where it contrasts."""

    def __init__(self, plan: Plan, architectures: Mapping[str, Architecture]) -> None:
        """Weights come from the plan's seed and each part's name alone, so equal architectures start equal anywhere."""
        super().__init__()
        self.method = plan.method
        encoders: dict[str, nn.Module] = {}
        decoders: dict[str, nn.Module] = {}
        projectors: dict[str, nn.Module] = {}
        with _DRAWING, torch.random.fork_rng(devices=[]):
            for name in sorted(architectures):
                modality = plan.modality(name)
                assert modality is not None, f"modality {name} is not in the plan"
                sizes = EncoderSizes(
                    architecture=architectures[name],
                    shape=modality.shape,
                    hidden=plan.method.hidden,
                    embedding=plan.method.embedding,
                )
                torch.manual_seed(derived_seed(plan.seed, "encoder", name, sizes.architecture))
                encoders[name] = Encoder(sizes)
                torch.manual_seed(derived_seed(plan.seed, "decoder", name, sizes.architecture))
                decoders[name] = _decoder(sizes, modality, plan)
                if plan.method.contrast > 0:
                    torch.manual_seed(derived_seed(plan.seed, "projector", name))
                    projectors[name] = _projector(sizes.embedding)
        self.encoders = nn.ModuleDict(encoders)
        self.decoders = nn.ModuleDict(decoders)
        self.projectors = nn.ModuleDict(projectors)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in sorted order."""
        return tuple(sorted(self.encoders))

    def encode(self, windows: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Hidden layers (B, H) and embeddings (B, D) of each modality in `windows`."""
        hidden: dict[str, Tensor] = {}
        embedding: dict[str, Tensor] = {}
        for name in self.modalities:
            if name in windows:
                hidden[name], embedding[name] = self.encoders[name](windows[name])
        return hidden, embedding


def pooled_over_time(x_BFT: Tensor, stretches: int) -> Tensor:
    """Features (B, F, T) as their means over each stretch of the window, and their maxima: (B, F * (stretches + 1))."""
    samples = x_BFT.shape[2]
    # Overlapping where the samples are too few; by slices, which ONNX has for every length.
    cuts = [(i * samples // stretches, -(-(i + 1) * samples // stretches)) for i in range(stretches)]
    return torch.cat([*(x_BFT[:, :, first:end].mean(dim=2) for first, end in cuts), x_BFT.amax(dim=2)], dim=1)


def _backbone(sizes: EncoderSizes) -> SignalConv | SignalLstm | FrameConv:
    stretches = STRETCHES if sizes.architecture == "ordered" else 1
    if len(sizes.shape) == 2:
        return FrameConv((sizes.shape[0], sizes.shape[1]), stretches)
    if sizes.architecture == "lstm":
        return SignalLstm(sizes.shape[0])
    return SignalConv(sizes.shape[0], sizes.architecture == "narrow", stretches)


def _decoder(sizes: EncoderSizes, modality: Modality, plan: Plan) -> nn.Module:
    window = plan.window.shape(modality)
    if len(window) == 3:
        return FrameDecoder(sizes.embedding, (window[0], window[1], window[2]))
    kind = LstmDecoder if sizes.architecture == "lstm" else SignalDecoder
    return kind(sizes.embedding, (window[0], window[1]))


def _projector(embedding: int) -> nn.Module:
    return nn.Sequential(nn.Linear(embedding, PROJECTOR_WIDTH), nn.ReLU(), nn.Linear(PROJECTOR_WIDTH, PROJECTED))


def _shrunk(side: int) -> int:
    for _ in FRAME_CHANNELS:
        side = (side + 1) // 2
    return side
