from setuptools import find_packages, setup

NAME = 'msfc_core'
MODULE = 'msfc'

setup(
    name=NAME,
    version='0.1.0',
    description='Multi-scale feature compression for split instance segmentation',
    license='Apache-2.0',
    maintainer='The MSFC developers',
    maintainer_email='maintainers@msfc.invalid',
    packages=find_packages(include=[MODULE, f'{MODULE}.*']),
    package_data={MODULE: ['zoo/**/*', 'bags/messages/*.msg', '**/*.yaml', 'py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
    ],
    install_requires=['setuptools'],
    # What makes colcon test run pytest.
    extras_require={
        'test': ['pytest'],
        # Edge bundles: writing them, and the two runtimes that run them.
        'export': ['onnx', 'onnxruntime', 'onnxscript', 'openvino'],
        'onnxruntime': ['onnxruntime'],
        'serve': ['ray[serve]'],
        'openvino': ['openvino'],
    },
    zip_safe=False,
    # No setup.cfg sends this to lib: it goes to bin, which the workspace's set-up puts on PATH.
    entry_points={'console_scripts': ['msfc = msfc.cli.start:main']},
)
