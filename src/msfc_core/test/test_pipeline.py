"""The two pipelines: together they are the quantised model, and each says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detector_models import MODELS, make_images
from msfc.codecs.msfc.codec import MSFC, MSFCConfig
from msfc.detectors.base import SplitDetector
from msfc.model import SplitModel
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.references import KeyStore
from msfc.pipeline.torch_network import edge_pipeline, image_to_tensor
from msfc.types import Instances, Pyramid
from msfc.wire.packed import PackedCoder
from msfc.wire.packet import DecodeLimits, PacketError, RefusalReason
from msfc.wire.packing import packed_size, unpack
from msfc.wire.quantizer import BIT_DEPTHS, dequantize, quantize
from referring import referring_model
from tiny import CODE_CHANNELS, randomize_norm, tiny_model

Image = NDArray[np.uint8]


def random_image(height: int, width: int, seed: int = 0) -> Image:
    """Return noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def make_detector(kind: str) -> SplitDetector:
    """Return a small real detector with random weights."""
    kit: Any = MODELS[kind]
    detector: SplitDetector = kit.make()
    return detector


def assert_same(a: Instances, b: Instances) -> None:
    """Assert that two results are equal to the last bit."""
    for name in ('boxes', 'scores', 'labels', 'masks'):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.fixture(scope='module')
def model() -> SplitModel:
    """Return a tiny model."""
    return tiny_model()


@settings(max_examples=40)
@given(
    height=st.integers(20, 150),
    width=st.integers(20, 150),
    bits=st.sampled_from(BIT_DEPTHS),
    seed=st.integers(0, 99),
)
def test_pair_equals_model(
    model: SplitModel, height: int, width: int, bits: int, seed: int
) -> None:
    image = random_image(height, width, seed)
    packet = edge_pipeline(model, bits).encode(image, seed)
    result = CloudPipeline(model).decode(packet)
    (expected,) = model([image_to_tensor(image)], bits)
    assert_same(result.instances, expected)
    assert result.instances.masks.shape[1:] == (height, width)


def test_a_batch_is_decoded_as_one_by_one(model: SplitModel) -> None:
    """Whatever is mixed in it; but for rounding, which depends on the number of images."""
    kinds = [((60, 80), 4), ((120, 90), 8), ((60, 80), 2), ((60, 80), 32)]
    packets = [
        edge_pipeline(model, bits).encode(random_image(*size, seed), seed)
        for seed, (size, bits) in enumerate(kinds)
    ]
    cloud = CloudPipeline(model)
    together = cloud.decode_batch(packets)
    assert len(together) == len(packets)
    for packet, result in zip(packets, together, strict=True):
        expected = cloud.decode(packet).instances
        found = result.instances
        assert len(found) == len(expected) > 0
        assert torch.equal(found.labels, expected.labels)
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-2)
        assert (found.masks != expected.masks).float().mean() < 1e-3
        assert all(seconds > 0 for seconds in result.durations.values())
    assert cloud.decode_batch([]) == []


def test_a_batch_with_one_bad_packet_is_refused(model: SplitModel) -> None:
    good = edge_pipeline(model).encode(random_image(60, 80))
    with pytest.raises(PacketError) as caught:
        CloudPipeline(model).decode_batch([good, replace(good, data=good.data[:-1])])
    assert caught.value.reason is RefusalReason.BAD_PAYLOAD_LENGTH


@pytest.mark.parametrize('bits', BIT_DEPTHS)
@pytest.mark.parametrize('kind', ['torchvision', 'detectron2'])
def test_pair_equals_halves_of_real_detectors(kind: str, bits: int) -> None:
    """Step by step, written out: extract, encode, quantise, dequantise, decode, infer."""
    if kind == 'detectron2':
        pytest.importorskip('detectron2', reason='needs Detectron2: scripts/setup.sh --detectron2')
    torch.manual_seed(7)
    detector = make_detector(kind).eval()
    msfc = MSFC(MSFCConfig(detector.feature_channels, 8)).eval()
    randomize_norm(msfc)
    model = SplitModel(detector, msfc, bits)
    (rgb,) = make_images([(97, 151)])
    packet = edge_pipeline(model).encode(rgb.permute(1, 2, 0).flip(2).numpy())
    result = CloudPipeline(model).decode(packet)
    with torch.no_grad():
        batch = detector.preprocess([rgb])
        pyramid = detector.extract(batch)
        code = torch.from_numpy(dequantize(quantize(msfc.analyse(pyramid).numpy(), bits), bits))
        sizes = detector.pyramid_sizes(batch.sizes.padded)
        (expected,) = detector.infer(msfc.synthesise(code, sizes), batch.sizes)
    assert len(expected) > 0
    assert_same(result.instances, expected)


def test_packet_describes_the_image(model: SplitModel) -> None:
    edge = edge_pipeline(model, 4)
    packet = edge.encode(random_image(50, 99), 12)
    assert packet.sequence == 12
    assert packet.image_size == (50, 99)
    assert packet.valid_size == (72, 143)
    assert packet.padded_size == (96, 160)
    assert packet.feature_size == (3, 5)
    assert packet.channels == CODE_CHANNELS
    assert packet.rate == 4
    assert packet.coding == 0
    assert packet.model == model.fingerprint == edge.fingerprint
    assert isinstance(packet.data, bytes)
    assert len(packet.data) == packed_size(CODE_CHANNELS * 15, 4) == model.payload_bytes((96, 160))


def test_payload_is_the_quantised_code(model: SplitModel) -> None:
    image = random_image(50, 99)
    packet = edge_pipeline(model, 8).encode(image)
    with torch.no_grad():
        batch = model.detector.preprocess([image_to_tensor(image)])
        code = model.require_codec().analyse(model.detector.extract(batch))
    symbols = unpack(packet.data, packet.elements, 8).reshape(code.shape[1:])
    assert (symbols == quantize(code[0].numpy(), 8)).all()


def test_float_payload_is_the_code(model: SplitModel) -> None:
    image = random_image(50, 99)
    packet = edge_pipeline(model, 32).encode(image)
    with torch.no_grad():
        batch = model.detector.preprocess([image_to_tensor(image)])
        code = model.require_codec().analyse(model.detector.extract(batch))
    assert packet.data == code.numpy().astype('<f4').tobytes()


def test_durations(model: SplitModel) -> None:
    packet = edge_pipeline(model).encode(random_image(50, 99))
    assert all(0 < seconds < 60 for seconds in packet.durations.values())
    assert all(seconds == np.float32(seconds) for seconds in packet.durations.values())
    durations = CloudPipeline(model).decode(packet).durations
    assert list(durations) == ['unpack', 'decode', 'infer']
    assert all(0 < seconds < 60 for seconds in durations.values())


@pytest.mark.parametrize(('given_', 'sent'), [(0, 0), (2**32 - 1, 2**32 - 1), (2**32 + 5, 5)])
def test_sequence_wraps(model: SplitModel, given_: int, sent: int) -> None:
    assert edge_pipeline(model).encode(random_image(30, 30), given_).sequence == sent


def test_rate_is_the_models_unless_set(model: SplitModel) -> None:
    edge = edge_pipeline(tiny_model(rate=16))
    assert edge.encode(random_image(30, 30)).rate == 16
    edge.rate = 2
    assert edge.encode(random_image(30, 30)).rate == 2
    with pytest.raises(ValueError, match='rate 3 is not one of 2, 4, 8, 16, 32'):
        edge.rate = 3
    assert edge.rate == 2
    with pytest.raises(ValueError, match='rate 0'):
        edge_pipeline(model, 0)


def test_one_receiver_takes_all_rates(model: SplitModel) -> None:
    cloud = CloudPipeline(model)
    for bits in BIT_DEPTHS:
        cloud.decode(edge_pipeline(model, bits).encode(random_image(40, 30)))


def test_pipelines_evaluate(model: SplitModel) -> None:
    trained = tiny_model().train()
    edge = edge_pipeline(trained)
    assert not trained.training
    before = {name: x.clone() for name, x in trained.state_dict().items()}
    edge.encode(random_image(40, 30))
    assert all(torch.equal(x, before[name]) for name, x in trained.state_dict().items())
    assert not CloudPipeline(tiny_model().train()).model.training


def test_a_model_without_codec_is_refused() -> None:
    for pipeline in (edge_pipeline, CloudPipeline):
        with pytest.raises(ValueError, match='no codec'):
            pipeline(tiny_model(codec=False))


def read_only(image: Image) -> Image:
    """Return an image as messages give it."""
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)


@pytest.mark.parametrize(
    'view',
    [
        read_only,
        np.asfortranarray,
        lambda image: np.pad(image, ((0, 0), (0, 5), (0, 0)))[:, :-5],
        lambda image: np.ascontiguousarray(image[::-1])[::-1],
        lambda image: np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1],
    ],
)
@pytest.mark.filterwarnings('error')
def test_any_layout_in_memory(model: SplitModel, view: Callable[[Image], Image]) -> None:
    edge, image = edge_pipeline(model), random_image(40, 30)
    assert edge.encode(view(image)).data == edge.encode(image).data


def test_colours_go_in_as_rgb() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 1] = (10, 20, 30)  # blue, green, red
    assert image_to_tensor(image)[:, 0, 1].tolist() == [30, 20, 10]


def test_images_are_not_changed_nor_kept(model: SplitModel) -> None:
    image = random_image(40, 30)
    copy = image.copy()
    edge_pipeline(model).encode(image)
    assert (image == copy).all()
    tensor = image_to_tensor(image)
    image[:] = 0
    assert tensor.any()


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((40, 30), np.uint8),
        np.zeros((40, 30, 4), np.uint8),
        np.zeros((3, 40, 30), np.uint8),
        np.zeros((1, 40, 30, 3), np.uint8),
        np.zeros((40, 30, 3), np.float32),
        np.zeros((0, 30, 3), np.uint8),
        np.zeros((40, 0, 3), np.uint8),
    ],
)
def test_other_images_are_refused(model: SplitModel, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match='an image is H x W x 3 uint8'):
        edge_pipeline(model).encode(image)


@pytest.mark.parametrize('bits', BIT_DEPTHS)
def test_not_a_number_is_not_sent(bits: int) -> None:
    broken = tiny_model()
    broken.state_dict()['codec.analysis.encoder.conv.weight'][0, 0, 0, 0] = math.nan
    with pytest.raises(PacketError, match='not numbers') as caught:
        edge_pipeline(broken, bits).encode(random_image(40, 30))
    assert caught.value.reason is RefusalReason.NOT_FINITE


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'model': 'f' * 16}, RefusalReason.FOREIGN_MODEL),
        ({'channels': CODE_CHANNELS + 1}, RefusalReason.BAD_CHANNELS),
        ({'padded_width': 161}, RefusalReason.BAD_PADDED_SIZE),
        ({'padded_width': 192}, RefusalReason.BAD_FEATURE_SIZE),
        ({'feature_height': 4}, RefusalReason.BAD_FEATURE_SIZE),
        ({'data': b''}, RefusalReason.BAD_PAYLOAD_LENGTH),
        ({'rate': 8}, RefusalReason.BAD_PAYLOAD_LENGTH),
    ],
)
def test_refusals_reach_the_caller(
    model: SplitModel, changes: dict[str, Any], reason: RefusalReason
) -> None:
    cloud, packet = CloudPipeline(model), edge_pipeline(model).encode(random_image(50, 99))
    for call in (cloud.validate, cloud.decode):
        with pytest.raises(PacketError) as caught:
            call(replace(packet, **changes))
        assert caught.value.reason is reason
    assert len(cloud.decode(packet).instances) == 2


def still(count: int, size: tuple[int, int] = (50, 99)) -> list[Image]:
    """Return images of one scene, with a pixel that changes."""
    images = [random_image(*size) for _ in range(count)]
    for index, image in enumerate(images):
        image[0, 0] = index
    return images


def test_what_refers_is_decoded_like_what_does_not() -> None:
    model = referring_model()
    edge, alone = edge_pipeline(model, key_interval=100), edge_pipeline(model)
    cloud, keys = CloudPipeline(model), KeyStore()
    packets = []
    for sequence, image in enumerate(still(6), 1):
        packets.append(edge.encode(image, sequence))
        result = cloud.decode(packets[-1], keys)
        assert_same(result.instances, cloud.decode(alone.encode(image, sequence)).instances)
        edge.keys.acknowledge(keys.acknowledged)
    assert [packet.reference for packet in packets] == [1] * 6
    assert [packet.is_key for packet in packets] == [True] + 5 * [False]
    assert [packet.refers for packet in packets] == [False] + 5 * [True]
    assert max(packet.payload_bytes for packet in packets[1:]) < packets[0].payload_bytes
    # In whatever order: only the key frame has to be there.
    valid = [cloud.validate(packet, keys) for packet in packets]
    for one, other in zip(cloud.decode_valid(valid[::-1]), packets[::-1], strict=True):
        expected = cloud.decode(other, keys).instances
        torch.testing.assert_close(one.instances.scores, expected.scores)


def test_a_key_frame_is_kept_whatever_becomes_of_it() -> None:
    model = referring_model()
    edge, cloud, keys = edge_pipeline(model, key_interval=9), CloudPipeline(model), KeyStore()
    first, second = still(2)
    valid = cloud.validate(edge.encode(first, 5), keys)
    assert keys.acknowledged == 5
    edge.keys.acknowledge(5)
    referring = edge.encode(second, 6)
    assert referring.refers
    cloud.decode(referring, keys)
    assert len(cloud.decode_valid([valid])[0].instances) == 2


def test_a_reference_that_is_not_known_is_refused(model: SplitModel) -> None:
    packet = replace(edge_pipeline(model, 8).encode(random_image(50, 99), 8), reference=7)
    with pytest.raises(PacketError, match='frame 7, but coding 0 has no references') as caught:
        CloudPipeline(model).decode(packet)
    assert caught.value.reason is RefusalReason.BAD_REFERENCE
    cloud, keys = CloudPipeline(referring_model()), KeyStore()
    for store in (None, keys):
        with pytest.raises(PacketError, match='frame 7, which is not known here') as caught:
            cloud.decode(packet, store)
        assert caught.value.reason is RefusalReason.MISSING_REFERENCE
    assert keys.wanted
    assert len(cloud.decode(replace(packet, reference=0), keys).instances) == 2
    assert keys.wanted
    # It names itself: a key frame.
    assert len(cloud.decode(replace(packet, reference=8)).instances) == 2
    assert len(cloud.decode(replace(packet, reference=8), keys).instances) == 2
    assert (keys.wanted, keys.acknowledged) == (False, 8)


def test_a_reference_is_looked_up_after_all_else() -> None:
    cloud, keys = CloudPipeline(referring_model()), KeyStore()
    packet = replace(edge_pipeline(referring_model()).encode(random_image(50, 99), 8), reference=7)
    valid = cloud.check(packet)
    assert not keys.wanted
    with pytest.raises(PacketError, match='frame 7'):
        cloud.resolve(valid, keys)
    assert keys.wanted
    key = cloud.resolve(cloud.check(replace(packet, reference=8)), keys)
    assert len(cloud.decode_valid([key])[0].instances) == 2
    assert keys.acknowledged == 8
    with pytest.raises(PacketError, match='beyond the limits'):
        cloud.check(replace(packet, image_width=10**6))


def test_a_frame_tells_what_it_takes_alone() -> None:
    edge = edge_pipeline(referring_model(), key_interval=9)
    first, second = (edge.analyse(image) for image in still(2))
    assert first.alone_bytes(8) == first.packet(8, 1).payload_bytes
    edge.keys.acknowledge(1)
    assert second.alone_bytes(8) == first.alone_bytes(8) > second.payload_bytes(8)


def test_another_frame_of_the_same_number_is_no_reference() -> None:
    """The sender was restarted, and the receiver has a key frame of before."""
    model = referring_model()
    edge, cloud, keys = edge_pipeline(model, key_interval=9), CloudPipeline(model), KeyStore()
    first, second = still(2)
    cloud.decode(edge.encode(random_image(50, 99, 1), 1), keys)
    edge.keys.restart()
    edge.encode(first, 1)  # is lost
    edge.keys.acknowledge(keys.acknowledged)
    with pytest.raises(PacketError, match='frame 1, but the one known here is another') as caught:
        cloud.decode(edge.encode(second, 2), keys)
    assert caught.value.reason is RefusalReason.MISSING_REFERENCE
    assert keys.wanted
    small = replace(edge_pipeline(model).encode(random_image(30, 30), 3), reference=1)
    with pytest.raises(PacketError, match='the one known here is of another size'):
        cloud.decode(small, keys)


def test_key_frames_need_a_coding_with_references(model: SplitModel) -> None:
    with pytest.raises(ValueError, match="the model's coding, 0, has no references"):
        edge_pipeline(model, key_interval=5)


def test_a_packet_is_checked_once(model: SplitModel, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []
    check = PackedCoder.check

    def counted(coder: PackedCoder, *given: Any) -> None:
        checks.append(given)
        check(coder, *given)

    monkeypatch.setattr(PackedCoder, 'check', counted)
    cloud, other = CloudPipeline(model), CloudPipeline(model)
    packet = edge_pipeline(model).encode(random_image(50, 99))
    valid = cloud.validate(packet)
    (result,) = cloud.decode_valid([valid])
    assert len(checks) == 1
    assert_same(cloud.decode(packet).instances, result.instances)
    assert len(checks) == 2
    with pytest.raises(ValueError, match='checked for another pipeline'):
        other.decode_valid([valid])


def test_refused_packets_do_not_reach_the_model(
    model: SplitModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, packet = CloudPipeline(tiny_model()), edge_pipeline(model).encode(random_image(50, 99))
    assert cloud.fingerprint == packet.model

    def fail(*_: object) -> Pyramid:
        raise AssertionError('the codec was called')

    monkeypatch.setattr(cloud.model.codec, 'synthesise', fail)
    with pytest.raises(PacketError):
        cloud.decode(replace(packet, image_height=2**32 - 1))
    with pytest.raises(AssertionError):
        cloud.decode(packet)


def test_limits_are_the_receivers(model: SplitModel) -> None:
    packet = edge_pipeline(model).encode(random_image(50, 99))
    cloud = CloudPipeline(model, DecodeLimits(max_image_side=98))
    with pytest.raises(PacketError, match='beyond the limits of 98 a side'):
        cloud.decode(packet)
    cloud.limits = DecodeLimits(max_image_side=99)
    cloud.decode(packet)


def test_masks_are_bounded(model: SplitModel) -> None:
    """Of more instances than the masks may take the surest are kept."""
    packet = edge_pipeline(model).encode(random_image(50, 99))
    pixels = 50 * 99
    everything = CloudPipeline(model).decode(packet).instances
    assert len(everything) == 2
    for bound, count in ((2 * pixels, 2), (2 * pixels - 1, 1), (pixels, 1)):
        limits = DecodeLimits(max_image_pixels=pixels, max_mask_pixels=bound)
        instances = CloudPipeline(model, limits).decode(packet).instances
        assert len(instances) == count
        assert torch.equal(instances.scores, everything.scores[:count])


def test_models_of_other_weights_do_not_understand_each_other(model: SplitModel) -> None:
    packet = edge_pipeline(model).encode(random_image(50, 99))
    with pytest.raises(PacketError, match=f'encoded for model {model.fingerprint}, but'):
        CloudPipeline(tiny_model(seed=5)).decode(packet)
