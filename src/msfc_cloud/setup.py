from xml.etree import ElementTree

from setuptools import setup

NAME = 'msfc_cloud'

setup(
    name=NAME,
    version=ElementTree.parse('package.xml').findtext('version'),
    description='The cloud-side node of MSFC: compressed features in, instances out',
    license='Apache-2.0',
    maintainer='The MSFC developers',
    maintainer_email='maintainers@msfc.invalid',
    packages=[NAME],
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
    ],
    install_requires=['setuptools'],
    # What makes colcon test run pytest.
    extras_require={'test': ['pytest']},
    zip_safe=True,
    entry_points={'console_scripts': ['cloud_node = msfc_cloud.main:main']},
)
