"""Ten thousand hostile packets: each is decoded or refused for one reason, within bounds."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from hostile import (
    ATTACKS,
    LIMITS,
    AllocationMeter,
    Outcome,
    PacketForge,
    check_instances,
    hostile_packets,
    largest_allocation,
    small_learned_codec,
    small_model,
)
from msfc.model import SplitModel
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.references import KeyStore
from msfc.pipeline.torch_network import edge_pipeline
from msfc.wire.packet import DecodeLimits, FeaturePacket, PacketError, RefusalReason
from tiny import CHANNELS, TinyDetector, tiny_model

FORGED = 9_000
DRAWN = 1_000
CODED = 1_000
KEY_BYTES = 2**14
"""Memory of the key frames: not all that are kept have room."""

NOT_OF_CODING_0 = {RefusalReason.MISSING_REFERENCE, RefusalReason.BAD_PAYLOAD}
NOT_OF_CODING_1 = {
    RefusalReason.BAD_SPARE_BITS, RefusalReason.NOT_FINITE, RefusalReason.OUT_OF_RANGE,
    RefusalReason.BAD_REFERENCE,
}
REFUSAL_BYTES = 64 * 2**10
"""What a refusal may take at most, in Python and numpy: sentences and one buffer of numpy's."""

TINY = tiny_model()
SPEC = TINY.packet_spec()


@pytest.fixture(scope='module')
def cloud() -> CloudPipeline:
    """Return a receiver with a tiny model."""
    return CloudPipeline(TINY, LIMITS)


def outcome(
    cloud: CloudPipeline, packet: FeaturePacket, meter: AllocationMeter,
    keys: KeyStore | None = None,
) -> Outcome:
    """Decode one packet and check what became of it."""
    meter.reset()
    try:
        result = cloud.decode(packet, keys)
    except PacketError as error:
        return checked_reason(error, meter)
    assert meter.operators > 0
    assert meter.largest <= largest_allocation(cloud.limits, len(cloud.model.class_names))
    instances = result.instances
    assert instances.masks.shape == (len(instances), *packet.image_size)
    for values in (instances.boxes, instances.scores):
        assert bool(torch.isfinite(values).all())
    return None


def checked_reason(error: PacketError, meter: AllocationMeter) -> RefusalReason:
    """Return the reason of a refusal that says it well and cost nothing."""
    sentence = str(error)
    assert isinstance(error.reason, RefusalReason)
    assert 10 < len(sentence) < 200
    assert sentence.isprintable()
    assert meter.operators == 0, 'torch was at work before the checks were done'
    return error.reason


def test_forged_packets(cloud: CloudPipeline) -> None:
    forge, counts = PacketForge(SPEC, seed=4), Counter[Outcome]()
    with AllocationMeter() as meter:
        for _ in range(FORGED):
            forged = forge.draw()
            found = outcome(cloud, forged.packet, meter)
            assert found in forged.outcomes, (found, forged)
            counts[found] += 1
    assert set(counts) == {None, *RefusalReason} - NOT_OF_CODING_0
    assert min(counts.values()) >= FORGED // 500


def test_forged_packets_of_range_coded_symbols() -> None:
    """Reading a payload may show that it is none: torch has not been at work then, either."""
    model = SplitModel(TinyDetector(), small_learned_codec(CHANNELS)).eval()
    cloud = CloudPipeline(model, LIMITS)
    forge, counts = PacketForge(model.packet_spec(), seed=4), Counter[Outcome]()
    keys, referred = KeyStore(max_bytes=KEY_BYTES), 0
    with AllocationMeter() as meter:
        for _ in range(CODED):
            forged = forge.draw()
            for packet in forge.new_keys():
                cloud.validate(packet, keys)
            found = outcome(cloud, forged.packet, meter, keys)
            assert found in forged.outcomes, (found, forged)
            assert keys.nbytes <= KEY_BYTES
            counts[found] += 1
            referred += found is None and forged.packet.refers
    assert set(counts) >= {
        None, RefusalReason.BAD_PAYLOAD, RefusalReason.BAD_PAYLOAD_LENGTH,
        RefusalReason.MISSING_REFERENCE,
    }
    assert referred > CODED / 30
    assert not counts.keys() & NOT_OF_CODING_1


@settings(max_examples=DRAWN, derandomize=True, database=None, deadline=None)
@given(packet=hostile_packets(SPEC))
def test_drawn_packets(cloud: CloudPipeline, packet: FeaturePacket) -> None:
    with AllocationMeter() as meter:
        outcome(cloud, packet, meter)


def test_refusals_take_no_memory(cloud: CloudPipeline) -> None:
    """Python's and numpy's allocations; torch does not run, as above."""
    forge = PacketForge(SPEC, seed=5)
    refused = 0
    tracemalloc.start()
    try:
        for _ in range(2_000):
            packet = forge.draw().packet
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            try:
                cloud.validate(packet)
            except PacketError:
                refused += 1
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < REFUSAL_BYTES, packet
    finally:
        tracemalloc.stop()
    assert refused > 1_000


@pytest.mark.parametrize('name', ATTACKS)
def test_each_attack_alone(cloud: CloudPipeline, name: str) -> None:
    forge = PacketForge(SPEC, seed=6)
    attack, found = ATTACKS[name], set[Outcome]()
    for _ in range(50):
        try:
            cloud.validate(attack.change(forge, forge.honest()))
        except PacketError as error:
            found.add(error.reason)
        else:
            found.add(None)
    assert found <= attack.outcomes


def test_forge_repeats_itself() -> None:
    first, second = PacketForge(SPEC, seed=7), PacketForge(SPEC, seed=7)
    for _ in range(200):
        a, b = first.draw(), second.draw()
        assert a.attacks == b.attacks
        assert repr(a.packet) == repr(b.packet)  # NaN is not equal to itself
        assert bytes(a.packet.data) == bytes(b.packet.data)


def test_random_payloads_give_instances_in_the_image() -> None:
    """Through the heads of a Mask R-CNN; images of one pixel and slivers are among them."""
    model = small_model()
    cloud = CloudPipeline(model, LIMITS)
    forge = PacketForge(model.packet_spec(), seed=8)
    bound = largest_allocation(LIMITS, 100)  # detections, by default
    found = 0
    with AllocationMeter() as meter:
        for _ in range(40):
            packet = forge.honest()
            meter.reset()
            instances = cloud.decode(packet).instances
            check_instances(instances, packet.image_size, len(model.class_names))
            assert meter.largest <= bound
            found += len(instances)
    assert found > 0


def test_largest_sizes_within_limits_stay_within_the_bound() -> None:
    model, limits = small_model(), DecodeLimits(512, 512 * 256, 512, 2**16)
    cloud = CloudPipeline(model, limits)
    honest = PacketForge(model.packet_spec(), limits).honest()
    packet = replace(
        honest,
        image_height=256,
        image_width=512,
        valid_height=256,
        valid_width=512,
        padded_height=512,
        padded_width=512,
        feature_height=16,
        feature_width=16,
        rate=32,
        data=np.linspace(-1, 1, honest.channels * 16 * 16, dtype='<f4').tobytes(),
    )
    with AllocationMeter() as meter:
        instances = cloud.decode(packet).instances
    check_instances(instances, packet.image_size, len(model.class_names))
    assert meter.largest <= largest_allocation(limits, 100)


def test_replayed_and_reordered_packets_decode_alike(cloud: CloudPipeline) -> None:
    """No packet depends on another, so order, repeats and numbers change nothing."""
    edge = edge_pipeline(TINY)
    rng = np.random.default_rng(0)
    packets = [
        edge.encode(rng.integers(0, 256, (40, 30 + index, 3), np.uint8), 2**32 - 5 + index)
        for index in range(10)
    ]
    expected = [cloud.decode(packet).instances for packet in packets]
    order = Random(0)
    for index in order.choices(range(10), k=100):
        packet = replace(packets[index], sequence=order.choice((0, 7, 2**32 - 1)))
        found = cloud.decode(packet).instances
        for name in ('boxes', 'scores', 'labels', 'masks'):
            assert torch.equal(getattr(found, name), getattr(expected[index], name))


def test_a_good_packet_decodes_after_all_that(cloud: CloudPipeline) -> None:
    packet = edge_pipeline(TINY).encode(np.zeros((40, 30, 3), np.uint8))
    before = cloud.decode(packet).instances
    forge = PacketForge(SPEC, seed=9)
    for _ in range(200):
        try:
            cloud.decode(forge.draw().packet)
        except PacketError:
            continue
    assert torch.equal(cloud.decode(packet).instances.boxes, before.boxes)
