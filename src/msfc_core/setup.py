# What colcon runs. All is in pyproject.toml but what colcon cannot read there.
from setuptools import setup

setup(python_requires='>=3.10')
