"""A camera as anybody would write it: plain rclpy, depth 10, no profile of Fast DDS.

It waits for a subscriber and for a number on its standard input, then publishes so many images,
each when the one before is acknowledged; or for the word end.
"""

import os
import sys
import time

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from msfc_ros.fast_dds import VARIABLES
from msfc_ros.image_to_message import to_bytes_field

HEIGHT, WIDTH = 480, 640

for name in VARIABLES:
    os.environ.pop(name, None)
rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
node = rclpy.create_node('plain_camera')
reliability = node.declare_parameter('reliability', 'reliable').value
publisher = node.create_publisher(
    Image, 'image_raw', QoSProfile(depth=10, reliability=ReliabilityPolicy[reliability.upper()])
)
pixels = np.random.default_rng(0).integers(0, 256, HEIGHT * WIDTH * 3, np.uint8)
image = Image(
    height=HEIGHT, width=WIDTH, step=WIDTH * 3, encoding='bgr8', data=to_bytes_field(pixels)
)
for line in map(str.strip, sys.stdin):
    if line == 'end':
        break
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    for _ in range(int(line)):
        image.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(image)
        publisher.wait_for_all_acked(Duration(seconds=60))
    print('published', line, flush=True)
node.destroy_node()
rclpy.shutdown()
