from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

NAME = 'msfc_sim'
HERE = Path(__file__).resolve().parent

# rosbag2's bags are folders.
CLIPS = sorted(path.name for path in (HERE / 'clips').iterdir() if path.is_dir())

setup(
    name=NAME,
    version=ElementTree.parse('package.xml').findtext('version'),
    description='A simulated robot camera over a tabletop',
    license='Apache-2.0',
    maintainer='The MSFC developers',
    maintainer_email='maintainers@msfc.invalid',
    packages=[NAME],
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *(
            (
                f'share/{NAME}/clips/{clip}',
                sorted(str(path.relative_to(HERE)) for path in (HERE / 'clips' / clip).iterdir()),
            )
            for clip in CLIPS
        ),
    ],
    install_requires=['setuptools'],
    # What makes colcon test run pytest.
    extras_require={'test': ['pytest']},
    zip_safe=True,
    entry_points={
        'console_scripts': [
            'camera_node = msfc_sim.main:camera_node',
            'clip_player = msfc_sim.main:clip_player',
            'record_clip = msfc_sim.main:record_clip',
        ]
    },
)
