"""One robot's half in a process of its own, for `edge_backends.py`; not a benchmark by itself.

    python benchmarks/edge_worker.py MODEL_OR_BUNDLE BACKEND THREADS FRAMES.npy

It answers each line with an index by a line of JSON: what encoding that frame took, by the clock
and of the processor, and at the end of its input by the most memory that it had. With a bundle it
imports no PyTorch.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np

from msfc.edge_bundle import is_bundle, read_bundle
from msfc.pipeline.edge import EdgePipeline
from msfc.pipeline.graph_network import bundle_pipeline, open_graph


def open_pipeline(source: str, backend: str, threads: int) -> EdgePipeline:
    """Load a model or a bundle.

    Raises:
        ValueError: it cannot be loaded, or not by this backend.
        ImportError: the backend is not installed.
    """
    if is_bundle(source):
        bundle = read_bundle(source)
        return bundle_pipeline(bundle, open_graph(bundle, backend, threads=threads))
    import torch

    from msfc.model_file import load_model
    from msfc.pipeline.torch_network import edge_pipeline

    torch.set_num_threads(threads)
    return edge_pipeline(load_model(source))


def peak_memory() -> float:
    """Return the most memory that this process had, in MB; getrusage would count its parent's."""
    found = re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(found[1]) / 1024 if found else float('nan')


def main() -> int:
    """Answer until the input ends."""
    source, backend, threads, path = sys.argv[1:]
    edge = open_pipeline(source, backend, int(threads))
    # Not mapped: pages of the file would count as this process's.
    frames = np.load(path)
    print(json.dumps({'torch': 'torch' in sys.modules}), flush=True)
    for line in sys.stdin:
        frame = frames[int(line)]
        begin, used = time.perf_counter(), time.process_time()
        edge.encode(frame)
        answer = {
            'seconds': time.perf_counter() - begin,
            'cpu_seconds': time.process_time() - used,
        }
        print(json.dumps(answer), flush=True)
    print(json.dumps({'peak_mb': peak_memory()}), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
