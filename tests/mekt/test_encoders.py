"""Split autoencoders: shapes, sizes, equal beginnings, gradients."""

import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mekt.encoders import PROJECTED, Encoder, EncoderSizes, SplitAutoencoder
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import Architecture, BlobRef, Method, Plan

torch.set_num_threads(1)

ACC = Modality(name="acc", shape=(3,), rate_hz=50, unit="g")
GYRO = Modality(name="gyro", shape=(3,), rate_hz=50, unit="rad/s")
DEPTH = Modality(name="depth", shape=(24, 32), rate_hz=10, unit="m")
KINECT = Modality(name="depth", shape=(48, 64), rate_hz=30, unit="m")
CAMERA = Modality(name="camera", shape=(8,), rate_hz=30, unit="")
ARCHITECTURES: tuple[Architecture, ...] = ("conv", "ordered", "lstm")
LARGEST_PARAMETERS = 200_000


def plan_of(*modalities: Modality, window_s: float = 2.56, seed: int = 7, contrast: float = 1.0) -> Plan:
    return Plan(
        seed=seed,
        rounds=1,
        window=WindowSpec(window_s=window_s, stride_s=window_s / 2),
        modalities=modalities,
        scaling={each.name: Scaling(mean=(0.0,) * each.channels, std=(1.0,) * each.channels) for each in modalities},
        proxy={each.name: BlobRef(sha256=bytes(32), size_bytes=1) for each in modalities},
        proxy_windows=2,
        method=Method(embedding=16, hidden=24, contrast=contrast),
    )


def windows_of(plan: Plan, batch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {each.name: torch.randn(batch, *plan.window.shape(each), generator=generator) for each in plan.modalities}


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("modality", [ACC, DEPTH, KINECT, CAMERA], ids=lambda each: f"{each.name}{each.shape}")
@pytest.mark.parametrize("window_s", [0.5, 1.0, 2.56])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_windows_become_embeddings_and_embeddings_windows(
    architecture: Architecture, modality: Modality, window_s: float, batch: int
) -> None:
    plan = plan_of(modality, window_s=window_s)
    model = SplitAutoencoder(plan, {modality.name: architecture})
    windows = windows_of(plan, batch)
    hidden, embedding = model.encode(windows)
    assert hidden[modality.name].shape == (batch, 24)
    assert embedding[modality.name].shape == (batch, 16)
    rebuilt = model.decoders[modality.name](embedding[modality.name])
    assert rebuilt.shape == windows[modality.name].shape
    assert rebuilt.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1,), (3,), (64,), (1, 1), (2, 3), (7, 5), (48, 64)], ids=str)
@pytest.mark.parametrize("samples", [1, 2, 7])
def test_odd_and_tiny_windows_are_encoded_and_rebuilt(
    architecture: Architecture, shape: tuple[int, ...], samples: int
) -> None:
    plan = plan_of(Modality(name="x", shape=shape, rate_hz=samples, unit=""), window_s=1)
    model = SplitAutoencoder(plan, {"x": architecture})
    window = torch.ones(2, samples, *shape)
    assert model.decoders["x"](model.encode({"x": window})[1]["x"]).shape == window.shape


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(3,), (24, 32)], ids=str)
def test_an_encoder_takes_windows_of_any_length_and_number(architecture: Architecture, shape: tuple[int, ...]) -> None:
    encoder = Encoder(EncoderSizes(architecture=architecture, shape=shape, hidden=24, embedding=16))
    for samples, batch in itertools.product((16, 50, 128), (1, 3)):
        hidden_BH, embedding_BD = encoder(torch.zeros(batch, samples, *shape))
        assert (hidden_BH.shape, embedding_BD.shape) == ((batch, 24), (batch, 16))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(3,), (24, 32)], ids=str)
def test_a_window_is_encoded_alike_alone_and_among_others(architecture: Architecture, shape: tuple[int, ...]) -> None:
    encoder = Encoder(EncoderSizes(architecture=architecture, shape=shape, hidden=24, embedding=16))
    windows = torch.randn(4, 20, *shape, generator=torch.Generator().manual_seed(0))
    together = encoder(windows)[1]
    alone = torch.cat([encoder(window)[1] for window in torch.split(windows, 1)])
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-5)


def test_the_hidden_layer_is_never_negative() -> None:
    plan = plan_of(ACC, DEPTH)
    hidden, _ = SplitAutoencoder(plan, {"acc": "conv", "depth": "conv"}).encode(windows_of(plan, 3))
    assert all((values >= 0).all() for values in hidden.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("modality", [ACC, GYRO, CAMERA, DEPTH, KINECT], ids=lambda each: f"{each.name}{each.shape}")
def test_a_modality_costs_a_board_at_most_200k_parameters(architecture: Architecture, modality: Modality) -> None:
    plan = replace(plan_of(modality), method=Method())
    model = SplitAutoencoder(plan, {modality.name: architecture})
    assert sum(parameter.numel() for parameter in model.parameters()) <= LARGEST_PARAMETERS


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before() -> None:
    architectures: dict[str, Architecture] = {"acc": "conv", "depth": "conv"}
    one = weights(SplitAutoencoder(plan_of(ACC, DEPTH), architectures))
    torch.rand(5)
    assert equal(weights(SplitAutoencoder(plan_of(ACC, DEPTH), architectures)), one)
    assert not equal(weights(SplitAutoencoder(plan_of(ACC, DEPTH, seed=8), architectures)), one)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_modality_starts_alike_whichever_others_are_there(architecture: Architecture) -> None:
    plan = plan_of(ACC, GYRO, DEPTH)
    alone = SplitAutoencoder(plan, {"gyro": architecture})
    among = SplitAutoencoder(plan, {"depth": "conv", "gyro": architecture, "acc": "lstm"})
    assert equal(weights(alone.encoders["gyro"]), weights(among.encoders["gyro"]))
    assert equal(weights(alone.decoders["gyro"]), weights(among.decoders["gyro"]))


def test_projectors_are_there_only_where_they_are_needed_and_change_nothing_else() -> None:
    architectures: dict[str, Architecture] = {"acc": "conv", "depth": "lstm"}
    with_them, without = (
        SplitAutoencoder(plan_of(ACC, DEPTH, contrast=contrast), architectures) for contrast in (0.5, 0.0)
    )
    assert (set(with_them.projectors), set(without.projectors)) == ({"acc", "depth"}, set())
    assert equal(weights(with_them.encoders), weights(without.encoders))
    assert equal(weights(with_them.decoders), weights(without.decoders))
    alone = SplitAutoencoder(plan_of(ACC, DEPTH, contrast=0.5), {"acc": "lstm"})
    assert equal(weights(alone.projectors["acc"]), weights(with_them.projectors["acc"]))
    assert not equal(weights(with_them.projectors["acc"]), weights(with_them.projectors["depth"]))
    assert with_them.projectors["acc"](torch.zeros(3, 16)).shape == (3, PROJECTED)


def test_modalities_of_one_shape_start_different() -> None:
    model = SplitAutoencoder(plan_of(ACC, GYRO), {"acc": "conv", "gyro": "conv"})
    assert not equal(weights(model.encoders["acc"]), weights(model.encoders["gyro"]))


def test_making_a_model_leaves_the_process_wide_generator_alone() -> None:
    before = torch.get_rng_state()
    SplitAutoencoder(plan_of(ACC, DEPTH), {"acc": "lstm", "depth": "conv"})
    assert torch.equal(torch.get_rng_state(), before)


def test_models_made_at_a_time_are_those_made_one_after_the_other() -> None:
    plans = [plan_of(ACC, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda plan: weights(SplitAutoencoder(plan, {"acc": "conv"})), plans))
    assert all(
        equal(weights(SplitAutoencoder(plan, {"acc": "conv"})), made)
        for plan, made in zip(plans, together, strict=True)
    )


def test_only_modalities_that_are_given_and_known_are_encoded() -> None:
    plan = plan_of(ACC, GYRO, DEPTH)
    model = SplitAutoencoder(plan, {"gyro": "conv", "acc": "conv"})
    assert model.modalities == ("acc", "gyro")
    hidden, embedding = model.encode({name: windows_of(plan, 2)[name] for name in ("depth", "gyro")})
    assert (list(hidden), list(embedding)) == (["gyro"], ["gyro"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("source", "target"), list(itertools.product(("acc", "gyro", "depth"), repeat=2)))
def test_every_decoder_teaches_every_parameter_of_every_encoder(
    architecture: Architecture, source: str, target: str
) -> None:
    plan = plan_of(ACC, GYRO, DEPTH, window_s=1.0)
    model = SplitAutoencoder(plan, dict.fromkeys(("acc", "gyro", "depth"), architecture))
    windows = windows_of(plan, 8)
    _, embedding = model.encode({source: windows[source]})
    loss = (model.decoders[target](embedding[source]) - windows[target]).square().mean()
    loss.backward()
    untouched = [
        name
        for name, parameter in model.encoders[source].named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert untouched == []
    others = [model.encoders[name] for name in model.modalities if name != source]
    assert all(parameter.grad is None for other in others for parameter in other.parameters())


@pytest.mark.parametrize("modality", [ACC, DEPTH], ids=lambda each: each.name)
@pytest.mark.parametrize(("architecture", "tells"), [("conv", False), ("ordered", True)])
def test_an_ordered_encoder_tells_what_came_first(modality: Modality, architecture: Architecture, tells: bool) -> None:
    """One event in a still window, early or late, far from the ends."""
    plan = plan_of(modality)
    encoder = SplitAutoencoder(plan, {modality.name: architecture}).encoders[modality.name]
    samples = plan.window.shape(modality)[0]
    early = torch.zeros(1, *plan.window.shape(modality))
    # A whole number of the encoder's steps of 8 samples apart.
    first, later = samples // 4, samples // 4 + 8 * (samples // 16)
    early[:, first : first + 2] = 1.0
    late = early.roll(later - first, dims=1)
    with torch.no_grad():
        one, other = (encoder(windows)[1] for windows in (early, late))
    assert (not torch.allclose(one, other, atol=1e-5)) == tells


def test_frames_are_seen_as_they_are_and_as_they_move() -> None:
    """A figure that stands anywhere, and one that moves, both leave their mark; a small movement a large one."""
    plan = plan_of(DEPTH)
    encoder = SplitAutoencoder(plan, {"depth": "conv"}).encoders["depth"]
    empty = torch.zeros(1, *plan.window.shape(DEPTH))
    standing, moving = empty.clone(), empty.clone()
    standing[:, :, 5:9, 5:9] = 0.1
    moving[:, ::2, 5:9, 5:9] = 0.2
    with torch.no_grad():
        none, still, moved = (encoder(windows)[1] for windows in (empty, standing, moving))
    assert 0 < (still - none).norm() < (moved - none).norm() / 2
