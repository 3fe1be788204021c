import io
import json

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import Instance, InstanceArray
from rich.console import Console

from msfc_demo.comparison import Comparison, ImagePoint, RateBytes
from msfc_demo.media import write_contact_sheet, write_video
from msfc_demo.metrics import DemoMetrics
from msfc_demo.monitor import FrameRecord, SentMessage, decode_jpeg, encode_jpeg

STAGES = {'preprocess': 0.001, 'backbone': 0.1, 'encode': 0.01, 'pack': 0.002}


def record(k, size=(120, 160)):
    image = np.full((*size, 3), 40 * k % 256, np.uint8)
    items = [
        Instance(class_id=0, class_name='ball', score=score, x=10, y=10, width=30, height=20,
                 mask=np.full(600, 255, np.uint8))
        for score in (0.9, 0.2)
    ]
    return FrameRecord(
        image=image,
        jpeg=encode_jpeg(image),
        raw_bytes=image.size,
        truth=InstanceArray(),
        sent=SentMessage(
            payload_bytes=100, message_bytes=200, payload_bpfe=0.01, bits_per_pixel=0.08,
            c_prime=8, rate=4, stages=STAGES,
        ),
        found=InstanceArray(image_height=size[0], image_width=size[1], instances=items),
        received=10**9 + k * 5 * 10**8,
        latency=0.1 * (k + 1),
    )


def show(renderable):
    console = Console(file=io.StringIO(), width=100)
    console.print(renderable)
    return console.file.getvalue()


@pytest.fixture
def figures():
    figures = DemoMetrics()
    for k in range(5):
        figures.add(record(k))
    figures.captured = figures.sent = 6
    figures.precision = {'mask_map': 0.5, 'box_map': float('nan')}
    figures.cloud_stages = {'unpack': 0.001, 'decode': 0.1, 'infer': 0.2}
    return figures


def test_json(figures):
    values = json.loads(json.dumps(figures.to_json(), allow_nan=False))
    assert values['frames_sent'] == 6
    assert values['frames_decoded'] == 5
    assert values['frames_per_second'] == 2
    assert values['payload_bytes_per_frame'] == 100
    assert values['message_bytes_per_frame'] == 200
    assert values['raw_to_message_ratio'] == 120 * 160 * 3 / 200
    assert values['jpeg_q90_bytes_per_frame'] > 100
    assert (values['payload_bpfe'], values['bits_per_pixel']) == (0.01, 0.08)
    assert (values['mask_map'], values['box_map']) == (0.5, None)
    assert values['latency_ms'] == {'p50': 300, 'p95': 480}
    assert values['stage_ms'] == {
        'preprocess': 1, 'backbone': 100, 'encode': 10, 'pack': 2,
        'unpack': 1, 'decode': 100, 'infer': 200,
    }
    assert (values['c_prime'], values['rate']) == (8, 4)


def test_table_and_lines(figures):
    table = show(figures.table(60))
    for words in ('5 of 60', '200', '0.01000', '288.0 : 1', 'p50 300  p95 480', '0.500'):
        assert words in table
    assert '5 of 60 frames' in figures.line(60)
    assert figures.seen() == 'sees: ball 0.90'


def test_table_shows_rates_and_the_bytes_of_images(figures):
    assert json.loads(json.dumps(figures.to_json()))['compared'] is None
    rates = RateBytes(0, 'rate 0', 81.5), RateBytes(1, 'rate 1', 140.0)
    points = ImagePoint('q=-50', 300.0, 0.4), ImagePoint('q=-40', 900.0, 0.6)
    figures.comparison = Comparison(8, 140.0, 0.6, rates, 'detector', points)
    compared = json.loads(json.dumps(figures.to_json()))['compared']
    assert compared['images']['bytes'] == pytest.approx(900)
    table = show(figures.table(60))
    for words in ('rate 0: payload, bytes', '82', 'H.265 intra : payload, at equal', '6.4 : 1'):
        assert words in table
    figures.comparison = Comparison(8, 140.0, 0.3, rates, 'detector', points)
    assert '≤ 2.1 : 1' in show(figures.table(60))
    figures.comparison = Comparison(8, 140.0, 0.7, rates, 'detector', points)
    assert 'not reached' in show(figures.table(60))
    figures.comparison = Comparison(8, 140.0, 0.7, rates, 'detector', missing='no encoder')
    table = show(figures.table(60))
    assert 'rate 1: payload, bytes' in table
    assert 'H.265' not in table


def test_without_a_frame():
    figures = DemoMetrics()
    values = json.loads(json.dumps(figures.to_json(), allow_nan=False))
    assert values['frames_decoded'] == 0
    assert values['mask_map'] is values['c_prime'] is values['latency_ms']['p50'] is None
    assert '0 of 60' in show(figures.table(60))
    assert figures.seen() == ''


def test_jpeg_is_that_of_the_image():
    image = np.tile(np.linspace(0, 255, 160).astype(np.uint8)[None, :, None], (120, 1, 3))
    assert np.abs(decode_jpeg(encode_jpeg(image)).astype(int) - image).max() < 10


@pytest.mark.parametrize('count', [1, 3, 5])
def test_pictures(figures, tmp_path, count):
    sheet = tmp_path / 'sheet.jpg'
    write_contact_sheet(sheet, figures.frames[:count], ['ball'])
    assert cv2.imread(str(sheet)).std() > 10
    clip = write_video(tmp_path, 'clip', figures.frames[:count], ['ball'])
    capture = cv2.VideoCapture(str(clip))
    read = 0
    while capture.read()[0]:
        read += 1
    assert read == count


def test_clip_without_a_video_codec(figures, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(cv2.VideoWriter, 'isOpened', lambda self: False)
    clip = write_video(tmp_path, 'clip', figures.frames, ['ball'])
    assert [path.name for path in tmp_path.iterdir()] == ['clip.webp'] == [clip.name]
    with Image.open(clip) as picture:
        assert picture.n_frames == 5
