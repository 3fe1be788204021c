import shutil

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc.simulation.objects import CLASS_NAMES
from msfc.simulation.scene import MIN_MASK_AREA
from msfc_ros.messages import instances_from_message
from msfc_sim.clip import ClipError, read_clip, shipped_clip, write_clip
from msfc_sim.messages import SCENE_IDS
from msfc_sim.record_clip import FRAMES_PER_SHOT, SCENES, main, record


@pytest.fixture(scope='module')
def shipped():
    return read_clip(shipped_clip())


def test_shipped_clip_is_small():
    assert sum(path.stat().st_size for path in shipped_clip().iterdir()) <= 3_000_000


def test_shipped_frames(shipped):
    assert len(shipped) == 60 == FRAMES_PER_SHOT * len(SCENES)
    stamps = [(f.image.header.stamp.sec, f.image.header.stamp.nanosec) for f in shipped]
    assert stamps == sorted(set(stamps))
    for frame in shipped:
        assert frame.decode().shape == (480, 640, 3)
        assert frame.image.header == frame.camera_info.header == frame.ground_truth.header
        assert frame.image.header.frame_id == 'camera_optical_frame'


def test_shipped_calibration(shipped):
    info = shipped[0].camera_info
    assert (info.width, info.height) == (640, 480)
    focal = 240 / np.tan(np.deg2rad(45) / 2)
    assert info.k[0] == info.k[4] == info.p[0] == pytest.approx(focal)
    assert (info.k[2], info.k[5]) == (319.5, 239.5)


def test_shipped_truth_is_framed_like_the_data_set(shipped):
    sides, classes = [], set()
    for frame in shipped:
        truth = instances_from_message(frame.ground_truth)
        areas = truth.masks.flatten(1).sum(1)
        whole = areas[areas >= MIN_MASK_AREA]
        assert 3 <= len(whole) <= 6
        assert areas.max() < 0.35 * 640 * 480
        assert (truth.scores == 1).all()
        assert truth.masks.sum(0).max() <= 1
        sides.extend(whole.sqrt() / 2)
        for item in frame.ground_truth.instances:
            assert CLASS_NAMES[item.class_id] == item.class_name
            classes.add(item.class_name)
    assert 70 <= np.median(sides) <= 110
    assert len(classes) >= 10


def test_camera_glides(shipped):
    first, second, last = (shipped[k].decode().astype(float) for k in (0, 1, FRAMES_PER_SHOT - 1))
    assert 0 < np.abs(first - second).mean() < np.abs(first - last).mean()


@pytest.mark.usefixtures('drawing')
def test_recording_is_reproducible(tmp_path):
    for name in ('one', 'other'):
        frames = record((5,), 2, 80, 160, 120)
        # The file has the name of its folder.
        assert write_clip(tmp_path / name / 'clip', frames) == 2
    for file in ('clip.mcap', 'metadata.yaml'):
        one, other = ((tmp_path / name / 'clip' / file).read_bytes() for name in ('one', 'other'))
        assert one == other
    with pytest.raises(SystemExit, match='exists already'):
        main([str(tmp_path / 'one' / 'clip'), '--scenes', '5'])


@pytest.mark.usefixtures('drawing')
def test_true_identities_stay_and_are_of_one_scene(tmp_path):
    write_clip(tmp_path / 'clip', record((5, 7), 2, 80, 160, 120))
    frames = read_clip(tmp_path / 'clip')
    classes = [{i.track_id: i.class_id for i in f.ground_truth.instances} for f in frames]
    for scene, (first, second) in enumerate((classes[:2], classes[2:])):
        both = first.keys() & second.keys()
        assert both
        assert all(first[identity] == second[identity] for identity in both)
        assert all(identity // SCENE_IDS == scene for identity in first | second)


def test_what_is_no_clip(tmp_path):
    with pytest.raises(ClipError, match='is no clip'):
        read_clip(tmp_path)
    (tmp_path / 'metadata.yaml').write_text('nothing')
    with pytest.raises(ClipError, match='cannot read the clip'):
        read_clip(tmp_path)


def test_damaged_clip(tmp_path):
    copy = tmp_path / 'tabletop'
    shutil.copytree(shipped_clip(), copy)
    file = copy / 'tabletop.mcap'
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(ClipError):
        read_clip(copy)


def test_damaged_chunk(tmp_path):
    copy = tmp_path / 'tabletop'
    shutil.copytree(shipped_clip(), copy)
    file = copy / 'tabletop.mcap'
    data = bytearray(file.read_bytes())
    chunk = data.index(b'\x28\xb5\x2f\xfd', 500_000)  # by zstd's magic number
    data[chunk : chunk + 100] = bytes(100)
    file.write_bytes(data)
    with pytest.raises(ClipError, match='cannot read the clip'):
        read_clip(copy)


@pytest.mark.parametrize('length', [0, 10, 5000])
def test_damaged_image(length):
    frame = read_clip(shipped_clip())[0]
    frame.image.data = frame.image.data[:length]
    with pytest.raises(ClipError, match='damaged'):
        frame.decode()
