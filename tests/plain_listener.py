"""A node that takes what the cloud publishes, as anybody would write it."""

import os
import sys

import rclpy
from msfc_msgs.msg import InstanceArray
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from msfc_ros.fast_dds import VARIABLES

TYPES = {'instances': InstanceArray, 'overlay': Image, 'label_map': Image}

for name in VARIABLES:
    os.environ.pop(name, None)
rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
node = rclpy.create_node('plain_listener')


def listen(topic):
    """Subscribe."""
    node.create_subscription(
        TYPES[topic], topic, lambda message: print(topic, flush=True), QoSProfile(depth=10)
    )


for topic in node.declare_parameter('topics', '').value.split(','):
    listen(topic)
rclpy.spin(node)
