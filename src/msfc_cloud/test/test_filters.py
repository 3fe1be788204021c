import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

import torch
from rclpy.node import Node
from rclpy.parameter import Parameter

from msfc.types import Instances
from msfc_cloud.filters import Filters
from msfc_ros.parameters import LiveParameters
from ros_fixtures import make_node

pytestmark = pytest.mark.usefixtures('ros')

NAMES = ('mug', 'ball', 'cone')


class FilterNode(Node):
    def __init__(self, **kwargs):
        super().__init__('filtering', **kwargs)
        self.filters = Filters(LiveParameters(self))


@pytest.fixture
def node():
    with make_node(FilterNode) as node:
        yield node


def found():
    """Return instances of the classes 0, 1, 2, 1 with masks of 40, 30, 20 and 10 pixels."""
    masks = torch.zeros((4, 10, 10), dtype=torch.bool)
    for index, mask in enumerate(masks):
        mask[: 4 - index] = True
    return Instances(
        boxes=torch.zeros((4, 4)),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6]),
        labels=torch.tensor([0, 1, 2, 1]),
        masks=masks,
        track_ids=torch.tensor([7, 8, 9, 0]),
    )


def left(node, **values):
    """Set parameters that are to be accepted; return labels and track ids of what is left."""
    parameters = [Parameter(name, value=value) for name, value in values.items()]
    for result in node.set_parameters(parameters):
        assert result.successful, result.reason
    kept = node.filters.apply(found())
    assert len(kept.masks) == len(kept.boxes) == len(kept)
    return kept.labels.tolist(), kept.track_ids.tolist()


def test_by_default_all_are_published(node):
    node.filters.take_classes(NAMES)
    assert left(node) == ([0, 1, 2, 1], [7, 8, 9, 0])


@pytest.mark.parametrize(
    ('values', 'ids'),
    [
        ({'classes': ['ball']}, [8, 0]),
        ({'classes': ['cone', 'mug']}, [7, 9]),
        ({'min_area': 20}, [7, 8, 9]),
        ({'min_area': 21}, [7, 8]),
        ({'min_area': 101}, []),
        ({'max_instances': 1}, [7]),
        ({'max_instances': 9}, [7, 8, 9, 0]),
        ({'classes': ['ball', 'cone'], 'min_area': 15, 'max_instances': 1}, [8]),
    ],
)
def test_what_is_left(node, values, ids):
    node.filters.take_classes(NAMES)
    assert left(node, **values)[1] == ids
    assert left(node, classes=[''], min_area=0, max_instances=0)[1] == [7, 8, 9, 0]


def test_unknown_names_are_refused_in_words(node):
    node.filters.take_classes(NAMES)
    (result,) = node.set_parameters([Parameter('classes', value=['mug', 'cat', 'dog'])])
    assert not result.successful
    assert result.reason == (
        "parameter classes has 'cat', 'dog', but the classes of the model are mug, ball, cone"
    )
    assert left(node)[0] == [0, 1, 2, 1]


def test_names_are_checked_as_the_model_comes(node):
    left(node, classes=['cat'])
    with pytest.raises(ValueError, match="has 'cat', but the classes of the model are mug"):
        node.filters.take_classes(NAMES)
    node.filters.forget_classes()
    left(node, classes=['ball'])
    node.filters.take_classes(NAMES)
    assert left(node)[1] == [8, 0]
