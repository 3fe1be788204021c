import re

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_cloud.camera_parameters import check_cameras, topics_of

TOPICS = {'features': 'features', 'instances': 'found/instances'}


def test_topics_are_in_the_camera_s_namespace():
    assert topics_of('', TOPICS) == TOPICS
    assert topics_of('front', TOPICS) == {
        'features': 'front/features', 'instances': 'front/found/instances'
    }
    assert topics_of('/robot2/front', TOPICS)['features'] == '/robot2/front/features'
    assert topics_of('front', {'features': '/here'}) == {'features': '/here'}


@pytest.mark.parametrize('names', [[''], ['front'], ['front', 'rear'], ['', '/robot2/rear_left']])
def test_good_names(names):
    check_cameras(names, TOPICS)


@pytest.mark.parametrize(
    ('names', 'topics', 'words'),
    [
        ([], TOPICS, 'parameter cameras is empty'),
        (['front', 'rear', 'front'], TOPICS, 'names one twice: front, rear, front'),
        (['front/'], TOPICS, "'front/', no namespace"),
        (['front door'], TOPICS, "'front door', no namespace"),
        (['2024'], TOPICS, "'2024', no namespace"),
        (['front', 'rear'], {'features': 'features', 'overlay': '/seen'}, "overlay is '/seen'"),
    ],
)
def test_bad_names(names, topics, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check_cameras(names, topics)
