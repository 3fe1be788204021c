"""Bags of features: reading, damage, inference, summary, the commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from typer.testing import CliRunner

from bag_files import (
    FRAME,
    PERIOD,
    TOPIC,
    feature_bytes,
    images,
    packets,
    stamp,
    storage,
    write_features,
)
from full_disk import full_disk
from msfc import model_file
from msfc.bags.conversion import current_instances, instances_message, packet_of
from msfc.bags.damaged import TAIL
from msfc.bags.definitions import (
    FEATURES,
    INSTANCES,
    LABELS,
    deserialize,
    output_topic,
    serialize,
    typestore,
)
from msfc.bags.inference import find_here, infer_bag
from msfc.bags.many import infer_many
from msfc.bags.reading import BagError, FeatureBag
from msfc.bags.summary import RECORD_BYTES, summarize
from msfc.bags.writing import BagWriter
from msfc.cli.main import app
from msfc.model_file import load_model, save_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
from referring import referring_model
from tiny import build_tiny, tiny_model

COUNT = 6
THRESHOLD = 0.3


pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def model():
    return tiny_model()


@pytest.fixture(scope='module')
def sent(model):
    return packets(model, COUNT)


@pytest.fixture(scope='module')
def contents(sent):
    return [feature_bytes(packet, index) for index, packet in enumerate(sent)]


@pytest.fixture
def bag(tmp_path, contents):
    return write_features(tmp_path / 'features', contents)


def messages(path):
    """Return topic, time and bytes of all messages of a bag, by rosbags' own reader."""
    with Reader(path) as reader:
        return [(c.topic, time, bytes(data)) for c, time, data in reader.messages()]


def results(path, kind=INSTANCES):
    with FeatureBag(path, kind=kind) as bag:
        return [(m.topic, m.time, m.data) for m in bag.messages()]


def compressed(file):
    """Return where the compressed chunks of a storage file begin, by zstd's magic number."""
    magic = re.escape(b'\x28\xb5\x2f\xfd')
    return [found.start() for found in re.finditer(magic, file.read_bytes())]


def read(path, **options):
    with FeatureBag(path, **options) as bag:
        return [message.data for message in bag.messages()], bag.damage


# -- definitions --


def test_definitions_are_those_of_the_package():
    folder = Path(__file__).parents[2] / 'msfc_msgs' / 'msg'
    names = {path.stem for path in folder.glob('*.msg')}
    assert {'CompressedFeature', 'InstanceArray'} <= names
    assert {f'msfc_msgs/msg/{name}' for name in names} <= set(typestore().types)


def test_a_bag_explains_itself(bag, contents, sent):
    # As Foxglove does: by nothing but the definition that the bag has of its messages.
    with Reader(bag) as reader:
        (connection,) = reader.connections
        store = get_typestore(Stores.ROS2_JAZZY)
        types = get_types_from_msg(connection.msgdef.data, connection.msgtype)
        store.register({k: v for k, v in types.items() if k not in store.types})
        message = store.deserialize_cdr(contents[2], connection.msgtype)
    assert message.header.frame_id == FRAME
    assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == stamp(2)
    assert (message.sequence, message.model) == (2, sent[2].model)
    assert bytes(message.data) == bytes(sent[2].data)


def test_packets_survive(bag, sent):
    with FeatureBag(bag) as features:
        found = [packet_of(features.deserialize(m)) for m in features.messages()]
    assert [replace(p, data=bytes(p.data)) for p in found] == sent


def test_a_recorder_needs_no_torch():
    code = (
        'import sys, msfc.bags.writing, msfc.bags.summary, msfc.cli.main; '
        'sys.exit("torch" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


# -- inference --


def expected(model, sent, threshold=THRESHOLD):
    """Return what the cloud node publishes for packets, as bytes."""
    cloud = CloudPipeline(model)
    made = []
    for index, packet in enumerate(sent):
        header = deserialize(feature_bytes(packet, index), FEATURES).header
        found = cloud.decode(packet).instances.above(threshold)
        message = instances_message(found, header, packet.image_size, model.class_names)
        made.append(serialize(message, INSTANCES))
    return made


def test_instances_are_those_of_the_cloud(bag, tmp_path, model, sent):
    output = tmp_path / 'out' / 'instances'
    seen = []
    report = infer_bag(
        bag, output, model, score_threshold=THRESHOLD, progress=lambda *a: seen.append(a)
    )
    assert (report.decoded, report.taken_over, report.damage) == (COUNT, 0, '')
    assert not report.refused
    assert seen == [(done, COUNT) for done in range(1, COUNT + 1)]
    found = results(output)
    assert [data for _, _, data in found] == expected(model, sent)
    assert {topic for topic, _, _ in found} == {'/robot1/instances'}
    assert [time for _, time, _ in found] == [time for _, time, _ in messages(bag)]
    assert any(deserialize(data, INSTANCES).instances for _, _, data in found)
    ((topic, _, data),) = results(output, LABELS)
    labels = deserialize(data, LABELS)
    assert topic == '/robot1/label_info'
    assert [c.class_name for c in labels.classes] == list(model.class_names)
    assert labels.model == model.fingerprint
    assert [p.name for p in output.parent.iterdir()] == ['instances']


def test_instances_of_an_earlier_definition():
    types = typestore().types
    kind = types['msfc_msgs/msg/Instance']
    values = {field.name: 3 for field in fields(kind)} | {'class_name': 'mug'}
    made = types[INSTANCES](header='its own', image_height=6, image_width=8, instances=[])
    assert current_instances(made) == made
    now = kind(**values)
    del values['track_id']
    earlier = replace(made, instances=[SimpleNamespace(**values)])
    (found,) = current_instances(earlier).instances
    assert found == replace(now, track_id=0)


def test_several_robots_in_one_bag(tmp_path, model, contents):
    topics = ('/robot1/features', '/robot2/features')
    bag = write_features(tmp_path / 'two', contents[:2], topics)
    report = infer_bag(bag, tmp_path / 'all', model)
    assert report.decoded == 4
    assert {topic for topic, _, _ in results(tmp_path / 'all')} == {
        '/robot1/instances', '/robot2/instances'
    }
    report = infer_bag(bag, tmp_path / 'one', model, topics[1:])
    assert report.decoded == 2
    assert {topic for topic, _, _ in results(tmp_path / 'one')} == {'/robot2/instances'}


@pytest.mark.parametrize(
    ('features', 'instances'),
    [
        ('/features', '/instances'),
        ('/robot1/features', '/robot1/instances'),
        ('/features_left', '/instances_left'),
        ('/features/left', '/features/left/instances'),
        ('/link', '/link/instances'),
    ],
)
def test_topics(features, instances):
    assert output_topic(features, 'instances') == instances


class Counting:
    """Counts what is decoded anew."""

    def __init__(self, monkeypatch):
        self.count = 0
        decode = CloudPipeline.decode_valid

        def counted(pipeline, packet):
            self.count += 1
            return decode(pipeline, packet)

        monkeypatch.setattr(CloudPipeline, 'decode_valid', counted)


def broken_off(bag, output, model, after):
    """Run until so many messages are done, as Ctrl-C would end it."""

    def stop(done, total):
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        infer_bag(bag, output, model, score_threshold=THRESHOLD, progress=stop)
    assert not output.exists()


def test_goes_on_after_a_break(bag, tmp_path, model, sent, monkeypatch):
    output = tmp_path / 'instances'
    broken_off(bag, output, model, 4)
    broken_off(bag, output, model, 2)  # and again, before it was where it had been
    counting = Counting(monkeypatch)
    report = infer_bag(bag, output, model, score_threshold=THRESHOLD)
    assert (report.decoded, report.taken_over, counting.count) == (COUNT, 4, 2)
    monkeypatch.undo()
    assert [data for _, _, data in results(output)] == expected(model, sent)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['features', 'instances']


def test_goes_on_after_a_kill(bag, tmp_path, model, sent, monkeypatch):
    output = tmp_path / 'instances'
    with monkeypatch.context() as patch:
        # Nothing is closed, but each message was handed to the system.
        patch.setattr('msfc.bags.writing.FLUSH_PERIOD', 0.0)
        patch.setattr(BagWriter, 'close', BagWriter.flush)
        broken_off(bag, output, model, 3)
    partial = storage(tmp_path / 'instances.partial' / '1' / 'instances')
    partial.write_bytes(partial.read_bytes()[:-60])
    counting = Counting(monkeypatch)
    report = infer_bag(bag, output, model, score_threshold=THRESHOLD)
    assert (report.decoded, report.taken_over) == (COUNT, 2)
    assert counting.count == COUNT - 2
    monkeypatch.undo()
    assert [data for _, _, data in results(output)] == expected(model, sent)


def test_another_runs_beginning_is_refused(bag, tmp_path, model):
    output = tmp_path / 'instances'
    broken_off(bag, output, model, 1)
    with pytest.raises(ValueError, match='other score_threshold: remove it'):
        infer_bag(bag, output, model, score_threshold=0.9)


def test_refusals_are_counted_and_the_rest_is_decoded(tmp_path, model, sent, contents):
    foreign = feature_bytes(replace(sent[1], model='0' * 16), 1)
    short = feature_bytes(replace(sent[2], data=bytes(sent[2].data)[:-1]), 2)
    mixed = [contents[0], foreign, short, contents[3], contents[4][:40]]
    bag = write_features(tmp_path / 'mixed', mixed)
    report = infer_bag(bag, tmp_path / 'out', model, score_threshold=THRESHOLD)
    assert report.decoded == 2
    assert report.refused == {'foreign_model': 1, 'bad_payload_length': 1, 'unreadable': 1}
    assert model.fingerprint in report.sentences['foreign_model']
    both = expected(model, sent)
    assert [data for _, _, data in results(tmp_path / 'out')] == [both[0], both[3]]


def test_a_bag_of_another_model_is_refused_at_once(bag, tmp_path, model):
    other = tiny_model(seed=1)
    with pytest.raises(
        BagError, match=rf'no features of model {other.fingerprint}.*{model.fingerprint} \(6 mess'
    ):
        infer_bag(bag, tmp_path / 'out', other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['features']


def test_a_folder_of_something_else_is_left_alone(bag, tmp_path, model):
    mine = tmp_path / 'instances.partial' / 'notes.txt'
    mine.parent.mkdir()
    mine.write_text('mine')
    with pytest.raises(ValueError, match=r'instances\.partial .* holds something else'):
        infer_bag(bag, tmp_path / 'instances', model)
    assert mine.read_text() == 'mine'


def test_output_is_not_overwritten(bag, tmp_path, model):
    with pytest.raises(ValueError, match='exists already'):
        infer_bag(bag, bag, model)


# -- many bags --


def find_late(pipeline, pending, threshold):
    """Find instances as a cluster may: nothing before all is there."""
    yield from find_here(pipeline, list(pending), threshold)


@pytest.fixture
def bags(tmp_path, sent, contents):
    """Three bags; of the second not all can be decoded, the third has two topics."""
    foreign = feature_bytes(replace(sent[1], model='0' * 16), 1)
    short = feature_bytes(replace(sent[2], data=bytes(sent[2].data)[:-1]), 2)
    two = ('/robot1/features', '/robot2/features')
    return [
        write_features(tmp_path / 'in' / 'plain', contents[:3]),
        write_features(tmp_path / 'in' / 'mixed', [foreign, contents[0], short, contents[1]]),
        write_features(tmp_path / 'in' / 'two', contents[:2], two),
    ]


@pytest.mark.parametrize('find', [find_here, find_late])
def test_many_bags_are_as_each_by_itself(bags, tmp_path, model, find):
    seen = []
    reports = infer_many(
        bags, tmp_path / 'out', CloudPipeline(model), (), THRESHOLD, find,
        lambda *numbers: seen.append(numbers),
    )
    assert seen == [(done, 11) for done in range(1, 12)]
    assert list(reports) == bags
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['mixed', 'plain', 'two']
    for bag in bags:
        alone = tmp_path / 'alone' / bag.name
        assert infer_bag(bag, alone, model, score_threshold=THRESHOLD) == reports[bag]
        assert messages(tmp_path / 'out' / bag.name) == messages(alone)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['alone', 'in', 'out']


@pytest.mark.parametrize('find', [find_here, find_late])
def test_many_bags_go_on_after_a_break(bags, tmp_path, model, monkeypatch, find):
    def stop(done, total):
        if done == 8:
            raise KeyboardInterrupt

    output, pipeline = tmp_path / 'out', CloudPipeline(model)
    with pytest.raises(KeyboardInterrupt):
        infer_many(bags, output, pipeline, (), THRESHOLD, find, stop)
    assert not output.exists()
    with pytest.raises(ValueError, match='another run, with other bags or settings: remove it'):
        infer_many(bags, output, pipeline, (), 0.9, find)
    with pytest.raises(ValueError, match='another run, with other bags or settings'):
        infer_many(bags[:2], output, pipeline, (), THRESHOLD, find)
    counting, seen = Counting(monkeypatch), []
    reports = infer_many(
        bags, output, pipeline, (), THRESHOLD, find, lambda *numbers: seen.append(numbers)
    )
    assert counting.count == 3
    assert seen[-1] == (11, 11)
    assert [report.decoded for report in reports.values()] == [3, 2, 4]
    assert reports[bags[1]].refused == {'foreign_model': 1, 'bad_payload_length': 1}
    for bag in bags:
        infer_bag(bag, tmp_path / 'alone' / bag.name, model, score_threshold=THRESHOLD)
        assert messages(output / bag.name) == messages(tmp_path / 'alone' / bag.name)
    assert not (tmp_path / 'out.partial').exists()


def test_a_bag_that_was_noted_but_not_put_in_its_place(bags, tmp_path, model, monkeypatch):
    output, pipeline = tmp_path / 'out', CloudPipeline(model)

    def die(work):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('msfc.bags.inference._Work.finish', die)
        with pytest.raises(KeyboardInterrupt):
            infer_many(bags, output, pipeline, (), THRESHOLD)
    counting = Counting(monkeypatch)
    infer_many(bags, output, pipeline, (), THRESHOLD)
    assert counting.count == 6
    assert len(results(output / 'plain')) == 3


def test_bags_that_would_have_one_name(bags, tmp_path, model, contents):
    other = write_features(tmp_path / 'elsewhere' / 'plain', contents[:1])
    with pytest.raises(ValueError, match='have the same name'):
        infer_many([*bags, other], tmp_path / 'out', CloudPipeline(model))
    mine = tmp_path / 'out.partial' / 'notes.txt'
    mine.parent.mkdir()
    mine.write_text('mine')
    with pytest.raises(ValueError, match='holds something else'):
        infer_many(bags, tmp_path / 'out', CloudPipeline(model))
    assert mine.read_text() == 'mine'


# -- key frames --


@pytest.fixture(scope='module')
def referring():
    """A model, and packets of which the second and the fifth are key frames."""
    model = referring_model()
    edge = edge_pipeline(model, key_interval=3)
    made = []
    for sequence, image in enumerate(images(1).repeat(7, 0)):
        made.append(edge.encode(image, sequence))
        edge.keys.acknowledge(sequence if made[-1].is_key else 2**31)
    assert [packet.reference for packet in made] == [0, 1, 1, 1, 4, 4, 4]
    return model, made


def referring_bag(path, made, taken):
    with BagWriter(path) as writer:
        writer.add_topic(TOPIC, FEATURES)
        for index in taken:
            writer.write(TOPIC, stamp(index), feature_bytes(made[index], index))
    return path


def test_a_recording_goes_on_at_any_key_frame(tmp_path, referring):
    model, made = referring
    bag = referring_bag(tmp_path / 'features', made, range(7))
    infer_bag(bag, tmp_path / 'all', model)
    whole = {time: data for _, time, data in results(tmp_path / 'all')}
    assert len(whole) == 7
    for first, orphans in ((1, 0), (2, 2), (3, 1), (4, 0)):
        taken = range(first, 7)
        bag = referring_bag(tmp_path / f'from_{first}', made, taken)
        report = infer_bag(bag, tmp_path / f'out_{first}', model)
        assert report.refused == ({'missing_reference': orphans} if orphans else {})
        found = results(tmp_path / f'out_{first}')
        assert len(found) == len(taken) - orphans == report.decoded
        assert all(whole[time] == data for _, time, data in found)
        with FeatureBag(bag) as features:
            (summary,) = summarize(features).topics
        assert summary.orphans == orphans
        keys = sum(made[index].is_key for index in taken)
        assert (summary.keys, summary.referring) == (keys, len(taken) - keys)


def test_key_frames_of_what_was_taken_over_are_read(tmp_path, referring, monkeypatch):
    model, made = referring
    bag = referring_bag(tmp_path / 'features', made, range(1, 7))
    broken_off(bag, tmp_path / 'out', model, 5)
    counting = Counting(monkeypatch)
    report = infer_bag(bag, tmp_path / 'out', model, score_threshold=THRESHOLD)
    assert (report.decoded, report.taken_over, counting.count) == (6, 5, 1)


def test_each_robot_has_its_own_key_frames(tmp_path, referring):
    model, made = referring
    with BagWriter(tmp_path / 'two') as writer:
        for topic, index in ((TOPIC, 1), ('/robot2/features', 2), (TOPIC, 3)):
            if index < 3:
                writer.add_topic(topic, FEATURES)
            writer.write(topic, stamp(index), feature_bytes(made[index], index))
    report = infer_bag(tmp_path / 'two', tmp_path / 'out', model)
    assert (report.decoded, report.refused) == (2, {'missing_reference': 1})


def test_commands_say_what_key_frames_are_missing(tmp_path, referring, monkeypatch):
    model, made = referring
    bag = referring_bag(tmp_path / 'features', made, range(2, 7))
    shown = run('info', bag)[1]
    assert f'{TOPIC}: 1 key frames, 4 messages are coded against one' in shown
    assert f'warning: {TOPIC}: 2 messages cannot be decoded' in shown
    monkeypatch.setattr('msfc.model_file.load_model', lambda *_: model)
    shown = run('infer', bag, tmp_path / 'out')[1]
    assert '3 messages decoded' in shown
    assert '2 refused (missing_reference), the first: coded against frame 1' in shown
    assert 'as where a recording begins between key frames' in shown


# -- what cannot be read --


def test_no_such_bag_or_topic(bag, tmp_path):
    with pytest.raises(BagError, match='there is no bag'):
        FeatureBag(tmp_path / 'nowhere')
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(BagError, match=r'no metadata\.yaml and no storage file'):
        FeatureBag(empty)
    with pytest.raises(BagError, match=r'no topic /features; its topics: /robot1/features \(msfc'):
        FeatureBag(bag, ['/features'])
    with pytest.raises(BagError, match='no topic of type msfc_msgs/msg/InstanceArray'):
        FeatureBag(bag, kind=INSTANCES)
    with pytest.raises(BagError, match='is msfc_msgs/msg/CompressedFeature, not'):
        FeatureBag(bag, [TOPIC], kind=INSTANCES)
    (tmp_path / 'text.mcap').write_text('no bag at all')
    with pytest.raises(BagError, match='is no MCAP file'):
        FeatureBag(tmp_path / 'text.mcap')
    (tmp_path / 'nothing.mcap').write_bytes(b'')
    with pytest.raises(BagError, match='cannot be read'):
        FeatureBag(tmp_path / 'nothing.mcap')


def test_a_bag_without_messages(tmp_path, model):
    bag = write_features(tmp_path / 'none', [])
    with pytest.raises(BagError, match='has no message on /robot1/features'):
        infer_bag(bag, tmp_path / 'out', model)


def test_a_folder_without_metadata(bag, contents):
    (bag / 'metadata.yaml').unlink()
    found, damage = read(bag)
    assert found == contents
    assert 'not closed properly' in damage


def plain_bag(path, contents):
    """Write a bag without compression, one chunk, as ros2 bag does by default."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(TOPIC, FEATURES, typestore=typestore())
        for index, data in enumerate(contents):
            writer.write(connection, stamp(index), data)
    return path


def flushed_bag(path, contents):
    """Write a bag with each message in a chunk of its own."""
    with BagWriter(path) as writer:
        writer.add_topic(TOPIC, FEATURES)
        for index, data in enumerate(contents):
            writer.write(TOPIC, stamp(index), data)
            writer.flush()
    return path


@pytest.mark.parametrize('make', [plain_bag, flushed_bag])
def test_a_truncated_file_is_read_up_to_the_break(tmp_path, contents, make):
    bag = make(tmp_path / 'whole', contents)
    assert read(bag) == (contents, '')
    file = storage(bag)
    whole = file.read_bytes()
    most = -1
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        try:
            found, damage = read(bag)
        except BagError:
            assert most <= 0, length
            continue
        assert damage, length
        assert found == contents[: len(found)]
        # All that is complete: no shorter file holds more.
        assert len(found) >= most
        most = len(found)
    assert most == COUNT
    # Each message is found as soon as its last byte is there.
    for index, data in enumerate(contents):
        if make is plain_bag:
            file.write_bytes(whole[: whole.index(data) + len(data)])
            assert read(bag)[0] == contents[: index + 1]


@pytest.mark.parametrize('make', [plain_bag, flushed_bag])
def test_zeros_before_the_break(tmp_path, contents, make):
    # What a loss of power leaves of blocks that were still on their way.
    bag = make(tmp_path / 'bag', contents)
    file = storage(bag)
    data = bytearray(file.read_bytes())
    start = (
        data.index(contents[4]) - RECORD_BYTES if make is plain_bag else compressed(file)[4] + 20
    )
    data[start : start + 40] = bytes(40)
    file.write_bytes(data[:-9])
    found, damage = read(bag)
    assert found == contents[:4]
    assert 'not closed properly' in damage


def test_messages_that_overtake_each_other(tmp_path, contents):
    # Two robots: each message of the second was received before, and taken after one of the first.
    bag = tmp_path / 'bag'
    with BagWriter(bag) as writer:
        for topic in ('/robot1/features', '/robot2/features'):
            writer.add_topic(topic, FEATURES)
        for index, data in enumerate(contents):
            writer.write('/robot1/features', stamp(index) + 5, data)
            writer.write('/robot2/features', stamp(index), data)
        writer.flush()
        broken = storage(bag).read_bytes()
    twice = [data for data in contents for _ in range(2)]
    assert read(bag) == (twice, '')
    storage(bag).write_bytes(broken)
    found, damage = read(bag)
    assert found == twice
    assert 'cannot be read' not in damage
    # Complete, but without an index, as ros2 bag can be told to write.
    storage(bag).write_bytes(broken + TAIL)
    assert read(bag) == (twice, '')


def test_what_is_written_goes_to_the_disk(tmp_path, contents, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda number: synced.append(os.fstat(number).st_size))
    monkeypatch.setattr('msfc.bags.writing.FLUSH_PERIOD', 0.0)
    with BagWriter(tmp_path / 'bag') as writer:
        writer.add_topic(TOPIC, FEATURES)
        for index, data in enumerate(contents):
            writer.write(TOPIC, stamp(index), data)
            assert len(synced) == index + 1
            assert read(tmp_path / 'bag')[0] == contents[: index + 1]
    assert synced == sorted(set(synced))


def test_a_damaged_chunk_ends_the_reading(tmp_path, contents):
    bag = flushed_bag(tmp_path / 'bag', contents)
    file = storage(bag)
    data = bytearray(file.read_bytes())
    chunk = compressed(file)[3]
    data[chunk + 20 : chunk + 60] = bytes(40)
    file.write_bytes(data)
    found, damage = read(bag)
    assert found == contents[:3]
    assert 'cannot be read' in damage


def test_no_flipped_bit_gives_another_message(tmp_path, contents):
    """Compressed data with an error in it can often be unpacked: the checksum tells."""
    bag = flushed_bag(tmp_path / 'bag', contents)
    file = storage(bag)
    whole = file.read_bytes()
    start = compressed(file)[2]
    end = start + int.from_bytes(whole[start - 8 : start], 'little')
    damages = set()
    for place in range(start + 4, end, 3):
        data = bytearray(whole)
        data[place] ^= 4
        file.write_bytes(data)
        found, damage = read(bag)
        assert all(message in contents for message in found)
        assert damage or found == contents
        damages.add(damage)
    assert any('checksum' in damage for damage in damages)
    file.write_bytes(whole)
    assert read(bag) == (contents, '')


def test_a_full_disk_is_told_and_what_was_written_can_be_read(tmp_path, contents):
    path = tmp_path / 'bag'
    writer = BagWriter(path)
    writer.add_topic(TOPIC, FEATURES)
    for index, data in enumerate(contents[:4]):
        writer.write(TOPIC, stamp(index), data)
        writer.flush()
    with full_disk(storage(path).stat().st_size):
        writer.write(TOPIC, stamp(4), contents[4])
        with pytest.raises(OSError, match=r'File too large.*bag'):
            writer.flush()
        with pytest.raises(OSError, match=r'File too large.*bag'):
            writer.close()
    assert read(path)[0][:4] == contents[:4]


def test_inference_over_a_truncated_bag(tmp_path, model, sent, contents):
    bag = flushed_bag(tmp_path / 'bag', contents)
    file = storage(bag)
    chunk = compressed(file)[4]
    file.write_bytes(file.read_bytes()[: chunk + 9])
    report = infer_bag(bag, tmp_path / 'out', model, score_threshold=THRESHOLD)
    assert report.decoded == 4
    assert 'not closed properly or is damaged' in report.damage
    assert [data for _, _, data in results(tmp_path / 'out')] == expected(model, sent)[:4]


# -- summary --


def test_summary(tmp_path, model, sent):
    numbers = (0, 1, 4, 5, 0, 1)  # two are missing, then the sender counts anew
    changed = [
        feature_bytes(replace(packet, sequence=number), index)
        for index, (packet, number) in enumerate(zip(sent, numbers, strict=True))
    ]
    bag = write_features(tmp_path / 'bag', changed)
    with FeatureBag(bag) as features:
        summary = summarize(features)
    (topic,) = summary.topics
    assert (topic.messages, topic.missing, topic.restarts) == (COUNT, 2, 1)
    assert topic.seconds == pytest.approx((COUNT - 1) * PERIOD * 1e-9)
    assert topic.rate == pytest.approx(10)
    assert topic.payload_bytes == sum(packet.payload_bytes for packet in sent)
    assert topic.message_bytes == sum(map(len, changed))
    assert topic.models == {model.fingerprint: COUNT}
    assert summary.storage_bytes == storage(bag).stat().st_size
    per_day = summary.storage_bytes / COUNT * 10 * 86400
    assert summary.bytes_per_day(topic) == pytest.approx(per_day)
    assert summary.raw_seconds_per_day(topic) == pytest.approx(per_day / (3 * 60 * 80 * 10))


# -- commands --


def run(*arguments):
    result = CliRunner().invoke(app, ['bag', *(str(argument) for argument in arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_info_command(bag, tmp_path):
    status, output = run('info', bag, '--json', tmp_path / 'info.json')
    assert status == 0, output
    assert re.search(rf'{TOPIC} +{COUNT} +0\.5 +10\.00', output), output
    assert 'a day takes' in output
    figures = json.loads((tmp_path / 'info.json').read_text())
    assert figures['topics'][0]['messages'] == COUNT
    status, output = run('info', tmp_path / 'nowhere')
    assert (status, output.startswith('error: there is no bag')) == (1, True)


def test_infer_command(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, 'build_detector', build_tiny)
    folder = tmp_path / 'model'
    save_model(tiny_model(), folder)
    model = load_model(folder)
    sent = packets(model, 4)
    contents = [feature_bytes(packet, index) for index, packet in enumerate(sent)]
    bag = flushed_bag(tmp_path / 'bag', contents)
    options = ('--model', folder, '--score-threshold', THRESHOLD)
    status, output = run('infer', bag, tmp_path / 'out', *options)
    assert status == 0, output
    assert '4 messages decoded' in output
    assert [data for _, _, data in results(tmp_path / 'out')] == expected(model, sent)

    file = storage(bag)
    chunk = compressed(file)[2]
    file.write_bytes(file.read_bytes()[:chunk])
    status, output = run('infer', bag, tmp_path / 'half', *options)
    assert status == 1
    assert '2 messages decoded' in output
    assert 'what could be read was decoded and written' in ' '.join(output.split())
    assert len(results(tmp_path / 'half')) == 2

    short = [feature_bytes(replace(p, data=bytes(p.data)[:-1]), 0) for p in sent]
    bag = flushed_bag(tmp_path / 'short', short)
    status, output = run('infer', bag, tmp_path / 'none', *options)
    assert status == 1
    assert '4 refused (bad_payload_length)' in output
    assert 'error: no message could be decoded' in output


def test_infer_command_of_many_bags(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, 'build_detector', build_tiny)
    folder = tmp_path / 'model'
    save_model(tiny_model(), folder)
    sent = packets(load_model(folder), 2)
    contents = [feature_bytes(packet, index) for index, packet in enumerate(sent)]
    short = [feature_bytes(replace(p, data=bytes(p.data)[:-1]), 0) for p in sent]
    good = [write_features(tmp_path / name, contents) for name in ('one', 'two')]
    bad = write_features(tmp_path / 'bad', short)
    options = ('--model', folder, '--score-threshold', THRESHOLD)
    status, output = run('infer', *good, tmp_path / 'out', *options)
    assert status == 0, output
    assert f'{good[1]}: 2 messages decoded\n' in output
    assert f'2 bags: {tmp_path / "out"}' in output
    assert len(results(tmp_path / 'out' / 'two')) == 2
    status, output = run('infer', *good, bad, tmp_path / 'all', *options)
    assert status == 1
    assert f'error: {bad}: no message could be decoded' in output
    assert len(results(tmp_path / 'all' / 'one')) == 2


def test_engines_that_are_not_there(bag, tmp_path, monkeypatch):
    status, output = run('infer', bag, tmp_path / 'out', '--engine', 'fire')
    assert (status, output) == (1, "error: unknown engine 'fire': choose local or ray\n")
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    status, output = run('infer', bag, tmp_path / 'out', '--engine', 'ray')
    assert status == 1
    assert "needs ray and pyarrow, which this environment lacks: run  pip install 'ray[" in output


def test_large_images_are_decoded_as_far_as_the_options_allow(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, 'build_detector', build_tiny)
    folder = tmp_path / 'model'
    save_model(tiny_model(), folder)
    (packet,) = packets(load_model(folder), 1)
    large = replace(packet, image_height=3000, image_width=4000)  # 12 MP
    bag = write_features(tmp_path / 'bag', [feature_bytes(large, 0)])
    options = ('--model', folder, '--score-threshold', 0.99)
    status, output = run('infer', bag, tmp_path / 'out', *options)
    assert (status, '1 messages decoded' in output) == (0, True), output
    status, output = run(
        'infer', bag, tmp_path / 'few', *options, '--max-image-pixels', 10**6
    )
    assert status == 1
    assert '1 refused (bad_image_size)' in output


@pytest.mark.parametrize('command', ['record', 'play'])
def test_without_ros_the_commands_say_so(command, bag, tmp_path, monkeypatch):
    monkeypatch.setattr('msfc.cli.plugins.entry_points', lambda group: ())
    status, output = run(command, bag if command == 'play' else tmp_path / 'new', '--unknown', 1)
    assert status == 1
    assert len(output.splitlines()) == 1
    assert output.startswith('error: recording and playing need ROS 2')
    assert 'msfc bag infer work without it' in output
    status, output = run('--help')
    assert status == 0
    assert command in output


def test_commands_of_a_package_that_cannot_be_imported_say_so(tmp_path, monkeypatch):
    points = (EntryPoint('record', 'nowhere.commands:record', 'msfc.bag_commands'),)
    monkeypatch.setattr('msfc.cli.plugins.entry_points', lambda group: points)
    status, output = run('record', tmp_path / 'new')
    assert status == 1
    assert "(No module named 'nowhere'): run scripts/setup.sh" in output


def test_commands_come_by_entry_points(monkeypatch):
    points = (EntryPoint('weigh', 'bag_files:weigh', 'msfc.bag_commands'),)
    asked = []
    monkeypatch.setattr(
        'msfc.cli.plugins.entry_points', lambda group: (asked.append(group), points)[1]
    )
    assert run('weigh', '--grams', '5') == (0, '5 g\n')
    assert set(asked) == {'msfc.bag_commands'}
    assert 'Weigh it.' in run('--help')[1]


def test_outputs_are_checked_first(bag, tmp_path):
    file = tmp_path / 'file'
    file.touch()
    status, output = run('info', bag, '--json', tmp_path)
    assert (status, output) == (1, f'error: {tmp_path} is a folder: name a file\n')
    status, output = run('infer', bag, file / 'out')
    assert status == 1
    assert f'{file} is none: name another' in output
