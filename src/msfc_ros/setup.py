from xml.etree import ElementTree

from setuptools import setup

NAME = 'msfc_ros'

setup(
    name=NAME,
    version=ElementTree.parse('package.xml').findtext('version'),
    description='What the nodes of MSFC share',
    license='Apache-2.0',
    maintainer='The MSFC developers',
    maintainer_email='maintainers@msfc.invalid',
    packages=[NAME],
    package_data={NAME: ['*.xml']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
    ],
    install_requires=['setuptools'],
    # What makes colcon test run pytest.
    extras_require={'test': ['pytest']},
    zip_safe=False,
    entry_points={
        # Commands of msfc bag that need ROS 2.
        'msfc.bag_commands': [
            f'play = {NAME}.bag_commands:play',
            f'record = {NAME}.bag_commands:record',
        ],
    },
)
