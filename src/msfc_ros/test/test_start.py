import gc
import os
import subprocess
import sys

import pytest

from msfc_ros.start import SPIN_COUNT, WAITING, collector_paused, wait_briefly


@pytest.fixture
def bare(monkeypatch):
    """Work in an environment without choices of a user."""
    for name in WAITING:
        monkeypatch.setenv(name, '')  # so that it is as before when the test is over
        monkeypatch.delenv(name)
    return monkeypatch


def test_threads_wait_briefly(bare):
    wait_briefly()
    assert os.environ['GOMP_SPINCOUNT'] == str(SPIN_COUNT)
    assert 'OMP_WAIT_POLICY' not in os.environ


@pytest.mark.parametrize('name', WAITING)
def test_choice_of_a_user_stays(bare, name):
    bare.setenv(name, 'active')
    wait_briefly()
    assert {key: os.environ[key] for key in WAITING if key in os.environ} == {name: 'active'}


def test_collector_comes_back_and_leaves_what_was_imported_alone():
    before = gc.get_freeze_count()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    gc.unfreeze()


def run(text):
    done = subprocess.run(
        [sys.executable, '-c', text], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize('module', ['msfc_edge.edge_node', 'msfc_cloud.cloud_node'])
def test_compiler_is_not_imported_by_a_node(module):
    pytest.importorskip(module.partition('.')[0])
    assert run(f"""
import importlib, sys
from msfc_ros.start import import_torchvision
import_torchvision()
importlib.import_module('{module}')
import numpy as np
from msfc.model_file import load_model
from msfc.pipeline.cloud import CloudPipeline
from msfc.pipeline.torch_network import edge_pipeline
model = load_model()
packet = edge_pipeline(model).encode(np.zeros((48, 64, 3), np.uint8))
CloudPipeline(model).decode(packet)
print('torch._dynamo' in sys.modules)
""") == ['False']


def test_compiler_is_there_when_it_is_asked_for():
    assert run("""
from msfc_ros.start import import_torchvision
import_torchvision()
import importlib, sys
taken = importlib.import_module('torchvision.ops.roi_align').is_compile_supported
print('torch._dynamo' in sys.modules, taken('cpu'), 'torch._dynamo' in sys.modules)
import torch._dynamo.utils
print(torch._dynamo.__file__ is not None, torch._dynamo.utils.is_compile_supported('cpu'))
""") == ['False', 'True', 'True', 'True', 'True']


def test_anything_else_that_is_taken_of_the_compiler_is_the_real_thing():
    assert run("""
import importlib.abc, importlib.util, sys
# As a torchvision would that takes more of it than today's.
class Loader(importlib.abc.Loader):
    def create_module(self, spec): return None
    def exec_module(self, module):
        from torch._dynamo.utils import counters
        module.counters = counters
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, Loader()) if name == 'torchvision' else None
sys.meta_path.insert(0, Finder())
from msfc_ros.start import import_torchvision
import_torchvision()
import torchvision, torch._dynamo.utils
print(torchvision.counters is torch._dynamo.utils.counters)
""") == ['True']
