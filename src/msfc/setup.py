from pathlib import Path

from setuptools import find_packages, setup

NAME = 'msfc'
HERE = Path(__file__).resolve().parent


def files(folder: str, pattern: str) -> list[str]:
    """Return the paths of files relative to this package, which setuptools wants."""
    return sorted(f'{folder}/{path.name}' for path in (HERE / folder).glob(pattern))


setup(
    name=NAME,
    version='0.1.0',
    description='Multi-scale feature compression for split instance segmentation',
    license='Apache-2.0',
    maintainer='The MSFC developers',
    maintainer_email='maintainers@msfc.invalid',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['zoo/**/*', 'bags/messages/*.msg', '**/*.yaml', 'py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        # The launch files are the project's face, so they are at the top of the repository.
        (f'share/{NAME}/launch', files('../../launch', '*.launch.py')),
        (f'share/{NAME}/config', files('config', '*.yaml')),
        (f'share/{NAME}/rviz', files('rviz', '*.rviz')),
        (f'share/{NAME}/security', files('security', '*.policy.xml')),
    ],
    install_requires=['setuptools'],
    zip_safe=False,
    # No setup.cfg sends this to lib: it goes to bin, which the workspace's set-up puts on PATH.
    entry_points={'console_scripts': ['msfc = msfc.cli:app']},
)
