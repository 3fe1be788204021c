"""MSFC: multi-scale feature compression for split instance segmentation.

What most programs need is here by name, and imported (PyTorch with it) when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msfc.model_file import load_model as load_model
    from msfc.pipeline.cloud import CloudPipeline as CloudPipeline
    from msfc.pipeline.torch_network import edge_pipeline as edge_pipeline

__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
    """Import what is named here and lies in a module of its own."""
    if name == 'CloudPipeline':
        from msfc.pipeline.cloud import CloudPipeline

        return CloudPipeline
    if name == 'edge_pipeline':
        from msfc.pipeline.torch_network import edge_pipeline

        return edge_pipeline
    if name == 'load_model':
        from msfc.model_file import load_model

        return load_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
