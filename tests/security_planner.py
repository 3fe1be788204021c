"""A process in the planner's enclave: says what it gets and what it may do, as JSON."""

import json
import sys
import time

import rclpy
from msfc_msgs.msg import CompressedFeature, InstanceArray, LabelInfo
from rclpy.executors import SingleThreadedExecutor

from msfc_ros.qos import LATCHED

PATIENCE = 100.0
"""Seconds to wait for the results."""


def main():
    rclpy.init()
    node = rclpy.create_node('msfc_planner')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    instances, label_info = [], []
    node.create_subscription(InstanceArray, 'instances', instances.append, 1)
    node.create_subscription(LabelInfo, 'label_info', label_info.append, LATCHED)
    end = time.monotonic() + PATIENCE
    while not (instances and label_info) and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    try:
        node.create_publisher(CompressedFeature, 'features', 1)
        may_publish = True
    except RuntimeError as error:
        print(error, file=sys.stderr)
        may_publish = False
    json.dump(
        {
            'instances': len(instances),
            'label_info': len(label_info),
            'may_publish_features': may_publish,
        },
        sys.stdout,
    )


if __name__ == '__main__':
    main()
