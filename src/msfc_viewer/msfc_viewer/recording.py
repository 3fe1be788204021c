"""What the pair sends and finds, as entities of a Rerun recording."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from msfc_msgs.msg import CompressedFeature, InstanceArray
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from msfc.visualization import class_colour
from msfc.wire.message_size import compressed_feature_bytes
from msfc_ros.masks import mask_of
from msfc_ros.stamps import nanoseconds
from msfc_viewer.screen import web_address

APPLICATION = 'msfc'

TIMELINE = 'camera'
"""Time of the cameras' stamps."""

WORLD = 'world'

CAMERA = f'{WORLD}/camera'
"""The entity of the camera, in whose frame the objects are; images lie below it."""

IMAGE = f'{CAMERA}/image'
MASKS = f'{IMAGE}/masks'
BOXES = f'{IMAGE}/boxes'
OBJECTS = f'{WORLD}/objects'
POINTS = f'{WORLD}/points'
BYTES = 'link/bytes'
LATENCY = 'time/latency_ms'
FOUND = 'time/instances'

JPEG_QUALITY = 80
"""Of the camera images in a recording, which would be as large as a bag otherwise."""

MOST_LABELS = 65535

COLOURED = 1500
"""Classes whose masks have the colour of their boxes: more than common data sets have."""


def layout() -> rrb.Blueprint:
    """Return which views there are, and where."""
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Vertical(
                rrb.Spatial2DView(origin=IMAGE, name='camera and masks'),
                rrb.Spatial3DView(origin=WORLD, name='objects in metres'),
            ),
            rrb.Vertical(
                rrb.TimeSeriesView(origin=BYTES, name='bytes a frame'),
                rrb.TimeSeriesView(origin=LATENCY, name='latency, ms'),
                rrb.TimeSeriesView(origin=FOUND, name='instances'),
            ),
            column_shares=[3, 2],
        ),
        rrb.BlueprintPanel(state='collapsed'),
        rrb.SelectionPanel(state='collapsed'),
        rrb.TimePanel(state='collapsed', timeline=TIMELINE, play_state='following'),
    )


class Recording:
    """A Rerun recording in one or several places.

    Args:
        name: of the recording; by default another one each time.
    """

    def __init__(self, name: str | None = None) -> None:
        self._name = name or str(uuid.uuid4())
        self._streams: list[Any] = []

    def save(self, path: Path) -> None:
        """Write it to a file; before the first entity.

        Raises:
            ValueError: if the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._add().save(path, default_blueprint=layout())
        except (OSError, RuntimeError) as error:
            raise ValueError(f'cannot write the recording {path}: {error}') from error

    def show(self) -> None:
        """Open Rerun's viewer in a window, or use the one that is open.

        Raises:
            ValueError: if it does not start.
        """
        try:
            self._add().spawn(default_blueprint=layout())
        except (OSError, RuntimeError) as error:
            raise ValueError(f"Rerun's viewer does not start: {error}") from error

    def serve(self, port: int) -> str:
        """Serve it to browsers; return the address.

        Args:
            port: of the pages; the next one is that of the data.

        Returns:
            The address, see :func:`msfc_viewer.screen.web_address`.

        Raises:
            ValueError: if it cannot be served.
        """
        try:
            self._add().serve_grpc(grpc_port=port + 1, default_blueprint=layout())
            rr.serve_web_viewer(web_port=port, open_browser=False)
        except (OSError, RuntimeError) as error:
            raise ValueError(f'cannot serve the viewer on port {port}: {error}') from error
        return web_address(port)

    def close(self) -> None:
        """Write what has not been written yet, and end."""
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.flush()
            stream.disconnect()

    # -- what is logged --

    def image(self, header: Header, image: NDArray[np.uint8]) -> None:
        """Log a camera image, H x W x 3 BGR."""
        picture = rr.Image(image, color_model='BGR').compress(jpeg_quality=JPEG_QUALITY)
        self._log(header, IMAGE, picture)

    def calibration(self, message: CameraInfo) -> None:
        """Log where the camera's pixels look."""
        if message.k[0] <= 0:
            return
        self._log(
            message.header,
            CAMERA,
            rr.Pinhole(
                image_from_camera=np.reshape(message.k, (3, 3)),
                resolution=[message.width, message.height],
                camera_xyz=rr.ViewCoordinates.RDF,
            ),
        )

    def features(self, message: CompressedFeature) -> None:
        """Log the bytes of a message that crossed the link."""
        size = compressed_feature_bytes(len(message.data), message.header.frame_id)
        self._log(message.header, f'{BYTES}/features', rr.Scalars(size))

    def instances(self, message: InstanceArray, latency: float | None, size: int) -> None:
        """Log masks, boxes with tracks, and how late and large they are.

        Args:
            message: what was found.
            latency: milliseconds from the camera's stamp; None if it is not known.
            size: bytes of the message.
        """
        header = message.header
        labels = np.zeros((message.image_height, message.image_width), np.uint16)
        # Weakest first, so that the surest lie on top.
        for item in reversed(message.instances):
            place = labels[item.y : item.y + item.height, item.x : item.x + item.width]
            place[mask_of(item)] = min(item.class_id + 1, MOST_LABELS)
        self._log(header, MASKS, rr.SegmentationImage(labels, opacity=0.5))
        self._log(
            header,
            BOXES,
            rr.Boxes2D(
                array=[[i.x, i.y, i.width, i.height] for i in message.instances],
                array_format=rr.Box2DFormat.XYWH,
                labels=[_label(item) for item in message.instances],
                colors=[_colour(item.class_id) for item in message.instances],
            ),
        )
        self._log(header, f'{BYTES}/instances', rr.Scalars(size))
        self._log(header, FOUND, rr.Scalars(len(message.instances)))
        if latency is not None:
            self._log(header, LATENCY, rr.Scalars(latency))

    def objects(self, message: MarkerArray) -> None:
        """Log the boxes of objects in metres."""
        boxes = [m for m in message.markers if m.type == Marker.CUBE and m.ns == 'boxes']
        names = {m.id: m.text for m in message.markers if m.ns == 'names'}
        if not message.markers:
            return
        self._log(
            message.markers[0].header,
            OBJECTS,
            rr.Boxes3D(
                centers=[_xyz(m.pose.position) for m in boxes],
                sizes=[_xyz(m.scale) for m in boxes],
                quaternions=[
                    rr.Quaternion(xyzw=[*_xyz(m.pose.orientation), m.pose.orientation.w])
                    for m in boxes
                ],
                labels=[names.get(m.id, '') for m in boxes],
                colors=[_rgb(m.color) for m in boxes],
            ),
        )

    def points(self, message: PointCloud2) -> None:
        """Log the points of objects, coloured by class."""
        names = [field.name for field in message.fields]
        if names[:3] != ['x', 'y', 'z'] or 'class_id' not in names:
            raise ValueError(f'a cloud with the fields {", ".join(names)} is none of msfc_depth')
        rows = np.frombuffer(message.data, np.uint8).reshape(-1, message.point_step)
        xyz = np.ascontiguousarray(rows[:, :12]).view('<f4')
        at = message.fields[names.index('class_id')].offset
        classes = np.ascontiguousarray(rows[:, at : at + 2]).view('<u2').ravel()
        palette = {label: _colour(label) for label in set(classes.tolist())}
        colours = np.array([palette[label] for label in classes.tolist()], np.uint8)
        self._log(message.header, POINTS, rr.Points3D(xyz, colors=colours.reshape(-1, 3)))

    def _add(self) -> Any:
        """Return a new stream, to be opened."""
        stream = rr.RecordingStream(APPLICATION, recording_id=self._name)
        self._streams.append(stream)
        # What a camera's optical frame is, so that up is up.
        stream.log(WORLD, rr.ViewCoordinates.RDF, static=True)
        # Once and for all: a second one is lost, and the first with it (Rerun 0.41).
        stream.log(IMAGE, _mask_colours(), static=True)
        return stream

    def _log(self, header: Header, entity: str, what: Any) -> None:
        for stream in self._streams:
            stream.set_time(TIMELINE, timestamp=nanoseconds(header) * 1e-9)
            stream.log(entity, what)


def _mask_colours() -> rr.AnnotationContext:
    """Return the colours of a mask's pixels: each is the number of its class and 1, or 0."""
    infos = [rr.AnnotationInfo(id=label + 1, color=_colour(label)) for label in range(COLOURED)]
    # What has no colour of its own gets one, and 0 is what no mask covers.
    return rr.AnnotationContext([rr.AnnotationInfo(id=0, color=(0, 0, 0, 0)), *infos])


def _label(item: Any) -> str:
    number = f'#{item.track_id} ' if item.track_id else ''
    return f'{number}{item.class_name} {item.score:.2f}'


def _colour(label: int) -> Sequence[int]:
    """Return the colour of a class, RGB."""
    return class_colour(label)[::-1]


def _rgb(colour: Any) -> list[int]:
    return [round(255 * value) for value in (colour.r, colour.g, colour.b)]


def _xyz(value: Any) -> list[float]:
    return [value.x, value.y, value.z]
