"""What the documentation shows runs. Its links are checked by ``scripts/docs.sh``."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize('page', ['README.md', 'docs/first-run.md'])
def test_python_of_the_first_pages_runs(page):
    (code,) = re.findall(r'^```python\n(.*?)^```', (ROOT / page).read_text(), re.M | re.S)
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d{3,4} bytes: \['.*'\]\n", done.stdout)


def test_names_of_the_library_are_known_and_others_are_not():
    import msfc

    assert msfc.edge_pipeline.__module__ == 'msfc.pipeline.torch_network'
    with pytest.raises(AttributeError, match="'msfc' has no attribute 'nothing'"):
        _ = msfc.nothing
