from xml.etree import ElementTree

from setuptools import setup

NAME = 'msfc_viewer'

setup(
    name=NAME,
    version=ElementTree.parse('package.xml').findtext('version'),
    description='The viewer of MSFC: camera, masks, tracks, boxes and figures in Rerun',
    license='Apache-2.0',
    maintainer='The MSFC developers',
    maintainer_email='maintainers@msfc.invalid',
    packages=[NAME],
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={
        # What makes colcon test run pytest.
        'test': ['pytest'],
        'viewer': ['rerun-sdk>=0.41'],
    },
    zip_safe=True,
    entry_points={'console_scripts': ['viewer_node = msfc_viewer.main:main']},
)
