"""The two halves at work: image to packet on the robot, packet to instances behind the link.

A :class:`~msfc.pipeline.cloud.CloudPipeline` makes of an
:class:`~msfc.pipeline.edge.EdgePipeline`'s packets exactly what the model makes of the images,
:meth:`msfc.model.SplitModel.forward`. Importing this package imports nothing else.
"""
