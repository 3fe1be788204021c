"""The ROS packages: each package.xml names what its files import, and nothing goes round."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FOLDERS = {
    'msfc': ROOT / 'launch',
    **{path.parent.name: path.parent for path in (ROOT / 'src').glob('*/package.xml')},
}

MODULES = {'msfc': 'msfc_launch', 'msfc_core': 'msfc'}
"""Python modules that are not named as their package is."""

KEYS = {
    'PIL': 'python3-pil',
    'cv2': 'python3-opencv',
    'hypothesis': 'python3-hypothesis',
    'matplotlib': 'python3-matplotlib',
    'msfc': 'msfc_core',
    'numpy': 'python3-numpy',
    'pytest': 'python3-pytest',
    'rich': 'python3-rich',
    'tf2_ros': 'tf2_ros_py',
    'torch': 'python3-pytorch-pip',
    'torchvision': 'python3-torchvision-pip',
    'typer': 'python3-typer',
    'yaml': 'python3-yaml',
}
"""What package.xml calls a module that has another name there."""

PIP = {
    'av': 'av',
    'constriction': 'constriction',
    'lightning_fabric': 'lightning-fabric',
    'mujoco': 'mujoco',
    'onnx': 'onnx',
    'onnxruntime': 'onnxruntime',
    'openvino': 'openvino',
    'pycocotools': 'pycocotools',
    'rerun': 'rerun-sdk',
    'rosbags': 'rosbags',
    'safetensors': 'safetensors',
    'supervision': 'supervision',
    'torchmetrics': 'torchmetrics',
    'trackers': 'trackers',
}
"""Modules that only pip has: requirements/ has them, and a comment of package.xml names them."""

OPTIONAL = {'detectron2', 'omegaconf', 'pyarrow', 'ray', 'starlette'}
"""Modules that are installed on request: setup.sh --detectron2, pip install ray[data,serve]."""

STARTED = {
    'msfc': {
        'msfc_cloud', 'msfc_depth', 'msfc_edge', 'msfc_sim', 'msfc_viewer',
        'ros2launch', 'rviz2',
    },
    'msfc_demo': {'msfc', 'msfc_cloud', 'msfc_depth', 'msfc_edge', 'msfc_sim', 'msfc_viewer'},
    'msfc_msgs': {'rosidl_default_runtime', 'std_msgs'},
}
"""What is needed without being imported: programs, parameter files, parts of messages."""

HELPERS = {
    path.stem
    for folder in ('tests', 'src/msfc_core/test')
    for path in (ROOT / folder).glob('*.py')
}
"""Modules beside the tests."""


def imports(path):
    """Return the modules that a file imports, without those of Python's own and its helpers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return {name.partition('.')[0] for name in found} - sys.stdlib_module_names - HELPERS


def used(package, tests):
    """Return the modules that a package's code, or its tests, import from elsewhere."""
    folder, own = FOLDERS[package], MODULES.get(package, package)
    files = (
        (folder / 'test').rglob('*.py')
        if tests
        else [*(folder / own).rglob('*.py'), *folder.glob('*.launch.py')]
    )
    return set().union(*map(imports, files)) - {own}


def depends(package, *kinds):
    """Return what package.xml depends on in some ways."""
    root = ElementTree.parse(FOLDERS[package] / 'package.xml').getroot()
    return {
        element.text for element in root if element.tag in (kinds or ('exec_depend', 'depend'))
    }


@pytest.mark.parametrize('package', FOLDERS)
def test_what_code_imports_is_named_and_no_more(package):
    modules = used(package, tests=False) - OPTIONAL
    named = {KEYS.get(module, module) for module in modules - set(PIP)}
    # Here a new module that only pip has goes into PIP, one that rosdep knows into KEYS.
    assert depends(package) == named | STARTED.get(package, set())
    text = (FOLDERS[package] / 'package.xml').read_text()
    assert [PIP[module] for module in modules & set(PIP) if PIP[module] not in text] == []


@pytest.mark.parametrize('package', FOLDERS)
def test_what_tests_import_is_named(package):
    modules = used(package, tests=True) - OPTIONAL - set(PIP)
    named = {KEYS.get(module, module) for module in modules}
    assert named <= depends(package) | depends(package, 'test_depend')


@pytest.mark.parametrize('package', FOLDERS)
def test_colcon_finds_its_tests(package):
    if package == 'msfc_msgs':
        # No tests of its own, see colcon.meta.
        assert not list(FOLDERS[package].rglob('test_*.py'))
    elif package == 'msfc':
        assert 'ament_add_pytest_test(' in (FOLDERS[package] / 'CMakeLists.txt').read_text()
    else:
        settings = FOLDERS[package] / 'pyproject.toml'
        if settings.is_file():
            assert "\ntest = ['pytest']\n" in settings.read_text()
        else:
            assert "'test': ['pytest']" in (FOLDERS[package] / 'setup.py').read_text()
    assert package == 'msfc_msgs' or list(FOLDERS[package].glob('test/test_*.py'))


def test_no_package_needs_itself():
    ours = set(FOLDERS)
    graph = {
        package: ours
        & depends(
            package, 'depend', 'build_depend', 'exec_depend', 'buildtool_depend', 'test_depend'
        )
        for package in FOLDERS
    }
    order = list(TopologicalSorter(graph).static_order())
    assert order.index('msfc') > max(
        order.index(p) for p in ('msfc_edge', 'msfc_cloud', 'msfc_depth', 'msfc_sim')
    )


def test_the_library_needs_no_ros_package():
    assert not depends('msfc_core') & set(FOLDERS)
    assert all(name.startswith('python3-') for name in depends('msfc_core'))


def test_pip_brings_what_the_library_imports():
    text = (FOLDERS['msfc_core'] / 'pyproject.toml').read_text()
    lists = text.partition('\ndependencies')[2].partition('[project.scripts]')[0]
    named = set(re.findall(r"'([\w-]+)", re.sub(r'(?m)^#.*', '', lists))) - {'msfc_core'}
    names = {'PIL': 'pillow', 'cv2': 'opencv-python-headless', 'yaml': 'pyyaml'}
    modules = used('msfc_core', tests=False) - OPTIONAL
    # What runs only where somebody asked for it is optional to the code, too.
    optional = {'onnxscript', 'pytest', 'ray'}
    assert named - optional == {names.get(m, PIP.get(m, m)) for m in modules}


def test_all_have_one_version():
    versions = {
        name: ElementTree.parse(folder / 'package.xml').getroot().findtext('version')
        for name, folder in FOLDERS.items()
    }
    for name, folder in FOLDERS.items():
        if (folder / 'setup.py').is_file() and not (folder / 'pyproject.toml').is_file():
            told = subprocess.run(
                [sys.executable, 'setup.py', '--version'],
                cwd=folder, capture_output=True, text=True, check=True,
            )
            versions[f'{name}, setup.py'] = told.stdout.split()[-1]
    code = (FOLDERS['msfc_core'] / 'msfc' / '__init__.py').read_text()
    versions['msfc.__version__'] = re.search(r"^__version__ = '(.+)'", code, re.MULTILINE)[1]
    citation = (ROOT / 'CITATION.cff').read_text()
    versions['CITATION.cff'] = re.search(r'^version: (.+)$', citation, re.MULTILINE)[1]
    assert len(set(versions.values())) == 1, versions
    changes = (ROOT / 'CHANGELOG.md').read_text()
    assert f"## [{versions['msfc_core']}] - " in changes
