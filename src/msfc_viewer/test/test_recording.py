import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')
pytest.importorskip('rerun', reason='rerun-sdk is not installed: python -m pip install rerun-sdk')

import numpy as np
from geometry_msgs.msg import Point, Pose, Vector3
from msfc_msgs.msg import CompressedFeature, Instance, InstanceArray
from rerun.chunk import RrdReader
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from msfc.mask_runs import pack_mask
from msfc.visualization import class_colour
from msfc_viewer import screen
from msfc_viewer.recording import (
    BOXES,
    BYTES,
    CAMERA,
    IMAGE,
    LATENCY,
    MASKS,
    OBJECTS,
    POINTS,
    Recording,
)
from msfc_viewer.viewer_node import ViewerNode
from ros_fixtures import camera_image, make_node

COLOURS = 'AnnotationContext:context'


def header(milliseconds=7250):
    made = Header(frame_id='camera_optical_frame')
    made.stamp.sec, rest = divmod(milliseconds, 1000)
    made.stamp.nanosec = rest * 10**6
    return made


def instances():
    mug = Instance(
        id=1, track_id=12, class_id=3, class_name='mug', score=0.9, x=2, y=1, width=4, height=2,
        packed_mask=pack_mask(np.array([[True, False] * 2] * 2)),
    )  # fmt: skip
    return InstanceArray(header=header(), image_height=12, image_width=16, instances=[mug])


def markers():
    common = {'header': header(), 'id': 1, 'action': Marker.ADD}
    return MarkerArray(
        markers=[
            Marker(header=header(), action=Marker.DELETEALL),
            Marker(
                **common, ns='boxes', type=Marker.CUBE, pose=Pose(position=Point(x=0.1, z=0.5)),
                scale=Vector3(x=0.2, y=0.1, z=0.1), color=ColorRGBA(r=1.0, a=0.4),
            ),
            Marker(**common, ns='names', type=Marker.TEXT_VIEW_FACING, text='#12 mug'),
        ]
    )  # fmt: skip


def cloud():
    points = np.zeros(2, [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('class_id', '<u2')])
    fields = [
        PointField(name=name, offset=offset, datatype=kind, count=1)
        for name, offset, kind in (('x', 0, 7), ('y', 4, 7), ('z', 8, 7), ('class_id', 12, 4))
    ]
    return PointCloud2(
        header=header(), height=1, width=2, fields=fields, point_step=14, row_step=28,
        data=points.tobytes(),
    )  # fmt: skip


def entities(path):
    """Return the entities of a recording, with the rows that each has."""
    rows = {}
    for chunk in RrdReader(path).stream().to_chunks():
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
    return rows


def verify(path):
    """Have Rerun's own command check a recording that was closed."""
    command = [sys.executable, '-m', 'rerun', 'rrd', 'verify', str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_is_in_the_file(tmp_path):
    path = tmp_path / 'new' / 'run.rrd'
    recording = Recording()
    recording.save(path)
    recording.calibration(
        CameraInfo(header=header(), width=16, height=12, k=[20.0, 0, 7.5, 0, 20, 5.5, 0, 0, 1])
    )
    recording.calibration(CameraInfo())
    recording.image(header(), np.zeros((12, 16, 3), np.uint8))
    recording.features(CompressedFeature(header=header(), data=[0] * 100))
    recording.instances(instances(), 85.0, 1234)
    recording.instances(InstanceArray(header=header(), image_height=12, image_width=16), None, 60)
    recording.objects(markers())
    recording.objects(MarkerArray())
    recording.points(cloud())
    recording.close()
    verify(path)
    rows = entities(path)
    for name in (CAMERA, IMAGE, MASKS, BOXES, OBJECTS, POINTS, LATENCY):
        assert rows.get(f'/{name}'), name
    assert rows[f'/{BYTES}/instances'] == 2
    assert rows[f'/{BYTES}/features'] == 1
    assert rows[f'/{LATENCY}'] == 1


def test_colours_of_masks_are_told_once(tmp_path):
    """Rerun loses them where they are told again; what no mask covers keeps its own colour."""
    path = tmp_path / 'run.rrd'
    recording = Recording()
    recording.save(path)
    message = instances()
    recording.instances(message, None, 0)
    message.instances[0].class_id = 5
    recording.instances(message, None, 0)
    recording.close()
    (colours,) = [
        batch.column(COLOURS).to_pylist()
        for chunk in RrdReader(path).stream().to_chunks()
        if COLOURS in (batch := chunk.to_record_batch()).schema.names
    ]
    ((classes,),) = colours
    told = {item['class_id']: item['class_description']['info']['color'] for item in classes}
    assert told[0] == 0
    for label in (3, 5):
        blue, green, red = class_colour(label)
        assert told[label + 1] == int.from_bytes([red, green, blue, 255])


def test_a_cloud_of_somebody_else():
    with pytest.raises(ValueError, match='is none of msfc_depth'):
        Recording().points(PointCloud2(fields=[PointField(name='x')]))


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='cannot write the recording'):
        Recording().save(tmp_path / 'file' / 'run.rrd')


def test_nothing_to_do(ros, capfd):
    with make_node(ViewerNode, show='none') as node:
        assert not node.start()
        assert "show is 'none' and record is empty" in capfd.readouterr().err


def test_a_screen(monkeypatch):
    monkeypatch.setattr(screen.sys, 'platform', 'linux')
    for name in screen.SCREENS:
        monkeypatch.delenv(name, raising=False)
    assert not screen.has_screen()
    monkeypatch.setenv('WAYLAND_DISPLAY', 'wayland-0')
    assert screen.has_screen()


def test_as_a_process(probe, start_node, tmp_path):
    """It records what is published while it runs, and the file is whole after SIGINT."""
    path = tmp_path / 'run.rrd'
    node = start_node('msfc_viewer', 'viewer_node', show='none', record=path)
    found = probe.publisher(InstanceArray, 'instances')
    images = probe.publisher(Image, 'image_raw')
    shown = probe.diagnostics()
    # The first may be lost, before the node has discovered who publishes.
    for _ in range(6):
        found.publish(instances())
        images.publish(camera_image())
        probe.spin(0.3)
    probe.wait(lambda: float(shown('showing').get('rate_hz', 0)) > 0, 'diagnostics')
    assert node.stop() == 0
    assert f'to open it: rerun {path}' in node.output
    verify(path)
    rows = entities(path)
    assert rows[f'/{BYTES}/instances'] >= 3
    assert rows[f'/{IMAGE}'] >= 3
