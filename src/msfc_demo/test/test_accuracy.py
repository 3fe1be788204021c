import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc_msgs.msg import Instance, InstanceArray

from msfc_demo.accuracy import MIN_AREA, RunningAccuracy
from msfc_ros.messages import instances_from_message


def instance(name, class_id, x, y, side, score=1.0):
    return Instance(
        class_id=class_id, class_name=name, score=score, x=x, y=y, width=side, height=side,
        mask=np.full(side * side, 255, np.uint8),
    )


def array(*instances):
    return InstanceArray(image_height=120, image_width=160, instances=list(instances))


def found(*instances):
    return instances_from_message(array(*instances))


@pytest.fixture
def accuracy():
    # Not in the order of the true classes' indices.
    return RunningAccuracy(['mug', 'ball', 'box'])


def test_all_found(accuracy):
    for _ in range(3):
        accuracy.add(
            found(instance('ball', 1, 5, 5, 40, 0.9), instance('mug', 0, 60, 60, 30, 0.8)),
            array(instance('mug', 9, 60, 60, 30), instance('ball', 0, 5, 5, 40)),
        )
    figures = accuracy.compute()
    assert figures['mask_map'] == figures['box_map'] == pytest.approx(1)
    assert accuracy.compute() == figures


def test_half_of_the_classes_found(accuracy):
    truth = array(instance('mug', 9, 60, 60, 30), instance('ball', 0, 5, 5, 40))
    accuracy.add(found(instance('ball', 1, 5, 5, 40, 0.9)), truth)
    assert accuracy.compute()['mask_map'] == pytest.approx(0.5)


def test_nothing_found(accuracy):
    assert accuracy.compute() == {}
    accuracy.add(found(), array(instance('mug', 9, 60, 60, 30)))
    assert accuracy.compute()['mask_map'] == 0


def test_slivers_are_not_asked_for(accuracy):
    side = int(np.sqrt(MIN_AREA)) - 1
    truth = array(instance('ball', 0, 5, 5, 40), instance('mug', 9, 80, 80, side))
    accuracy.add(found(instance('ball', 1, 5, 5, 40, 0.9)), truth)
    assert accuracy.compute()['mask_map'] == pytest.approx(1)


def test_classes_that_the_model_does_not_have(accuracy):
    accuracy.add(found(), array(instance('hammer', 0, 5, 5, 40)))
    assert accuracy.unknown == {'hammer'}
    assert accuracy.compute() == {}
