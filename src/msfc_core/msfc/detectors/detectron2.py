"""Split detectors from Detectron2: any ``GeneralizedRCNN`` with an FPN and masks or keypoints.

Detectron2 has no package on PyPI and is optional; it is imported when a detector is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msfc.detectors.base import SplitDetector, TeacherDetector, no_mask_outputs
from msfc.detectors.detectron2_config import (
    CONFIG_KEYS,
    build_model,
    input_edges,
    read_config,
    with_num_classes,
)
from msfc.detectors.detectron2_weights import load_weights
from msfc.heads.base import PyramidHead
from msfc.heads.semantic import SemanticHead, check_class_count
from msfc.preprocessing import Preprocessing
from msfc.settings import check_no_number_texts, check_texts
from msfc.types import ImageBatch, ImageSizes, Instances, Pyramid, PyramidHook, Size, Targets

SETTINGS = ('type', 'config_file', 'weights', 'partial', 'overrides', 'class_names')
"""Keys of :meth:`Detectron2Detector.from_settings`."""

FURTHER_NAMES = ('keypoint_names', 'semantic_names')
"""Keys of a configuration that only models with keypoints or a semantic branch have."""

_LEVEL_STRIDES = {'p2': 4, 'p3': 8, 'p4': 16, 'p5': 32, 'p6': 64}


class Detectron2Detector(TeacherDetector):
    """A Detectron2 ``GeneralizedRCNN`` with mask or keypoint head, cut behind its FPN.

    A ``PanopticFPN`` is one too: its semantic branch is among the :meth:`heads`. The losses are
    those of boxes and masks; keypoint heads and semantic branches are not trained.

    Images are resized as Detectron2's ``DefaultPredictor`` does it, and brought into the channel
    order that the model was trained on.

    Args:
        config: a configuration as :meth:`config` returns it; weights are random. Use
            :meth:`from_file` to start from a Detectron2 configuration file.

    Attributes:
        model: the network itself.

    Raises:
        ImportError: Detectron2 is not installed.
        ValueError: the configuration is malformed, or of a model that cannot be cut at p2..p6.
    """

    model: Any
    class_layers = ('model.roi_heads.box_predictor', 'model.roi_heads.mask_head.predictor')

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        require_detectron2()
        unknown = set(config) - {'type', 'class_names', *FURTHER_NAMES, *CONFIG_KEYS}
        if unknown:
            raise ValueError(f'unknown keys for a Detectron2 model: {", ".join(sorted(unknown))}')
        self._config = dict(config)
        self.model = build_model(config)
        self._min_size, self._max_size = input_edges(config)
        _check(self.model)
        shapes = self.model.backbone.output_shape()
        self.keypoint_names = tuple(config.get('keypoint_names', ()))
        self._semantic_names = tuple(config.get('semantic_names', ()))
        self._check_names()
        self.class_names = tuple(config.get('class_names', ()))
        if len(self.class_names) != self.model.roi_heads.num_classes:
            raise ValueError(
                f'{len(self.class_names)} class names for a model of '
                f'{self.model.roi_heads.num_classes} classes'
            )
        self.feature_channels = shapes['p2'].channels
        self.strides = {name: shape.stride for name, shape in shapes.items() if name != 'p6'}
        self.size_divisibility = max(self.model.backbone.size_divisibility, 1)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Detectron2Detector:
        """Build the architecture that :meth:`config` described, with random weights."""
        return cls(config)

    @classmethod
    def from_file(
        cls,
        source: str | Path,
        *,
        weights: str | Path | None = None,
        partial: bool = False,
        class_names: Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Detectron2Detector:
        """Build a detector from a Detectron2 configuration file.

        Args:
            source: a YAML or LazyConfig ``.py`` file, or the name of one in Detectron2's zoo.
            weights: a ``.pkl``, ``.pth`` or ``.safetensors`` file or an address; ``None`` for
                random weights. What the configuration itself names is not loaded.
            partial: accept weights for a part of the model, such as an ImageNet backbone.
            class_names: names of the classes; ``None`` takes those of the data set that the
                configuration tests on, where Detectron2 knows them.
            overrides: dotted configuration key to value.

        Raises:
            ImportError: Detectron2 is not installed.
            FileNotFoundError: no such configuration or weights.
            ValueError: not usable, see the text.
        """
        require_detectron2()
        config, data_set = read_config(source, overrides)
        model = build_model(config)
        if class_names is None:
            class_names = _class_names(data_set, model.roi_heads.num_classes)
        detector = cls({
            'type': 'detectron2', **config, 'class_names': list(class_names),
            **_further_names(model, data_set),
        })
        if weights is not None:
            load_weights(detector.model, weights, partial=partial)
        return detector

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], class_names: Sequence[str]
    ) -> Detectron2Detector:
        """Build the detector of an experiment.

        Unlike :meth:`from_config`, which reads what a model file from elsewhere says, this may
        run a LazyConfig file and fetch weights: settings are the user's own.

        Args:
            settings: ``config_file``, and if wanted ``weights``, ``partial``, ``overrides`` and
                ``class_names``, as :meth:`from_file` takes them.
            class_names: of the data set to train on. Weights of a whole model come with their own
                classes, where Detectron2 knows them; all else takes these.

        Raises:
            ImportError: Detectron2 is not installed.
            FileNotFoundError: no such configuration or weights.
            ValueError: not usable, see the text.
        """
        check_settings(settings)
        require_detectron2()
        source, overrides = settings['config_file'], settings.get('overrides')
        weights, partial = settings.get('weights'), bool(settings.get('partial'))
        names = settings.get('class_names')
        if names is None and weights is not None and not partial:
            _, data_set = read_config(source, overrides)
            names = _known_classes(data_set)
        return cls.from_file(
            source, weights=weights, partial=partial, overrides=overrides,
            class_names=class_names if names is None else names,
        )

    def config(self) -> dict[str, Any]:
        """Return the architecture as JSON data; see :mod:`msfc.detectors.detectron2_config`."""
        return dict(self._config)

    def with_classes(self, class_names: Sequence[str]) -> SplitDetector:
        """Return a detector for other classes; see :meth:`SplitDetector.with_classes`."""
        names = list(class_names)
        config = with_num_classes(self._config, len(names))
        return self._copy_to(Detectron2Detector({**config, 'class_names': names}))

    def preprocess(self, images: Sequence[Tensor]) -> ImageBatch:
        """Resize, normalise and pad images; see :meth:`SplitDetector.preprocess`."""
        inputs = [{'image': self._resized(image)} for image in images]
        batch = self.model.preprocess_image(inputs)
        sizes = ImageSizes(
            source=tuple((image.shape[1], image.shape[2]) for image in images),
            valid=tuple((int(height), int(width)) for height, width in batch.image_sizes),
            padded=(batch.tensor.shape[2], batch.tensor.shape[3]),
        )
        return ImageBatch(batch.tensor, sizes)

    def preprocessing(self) -> Preprocessing:
        """Return :meth:`preprocess` without PyTorch; see :meth:`SplitDetector.preprocessing`.

        Raises:
            ValueError: the backbone pads images to squares.
        """
        if self.model.backbone.padding_constraints.get('square_size', 0):
            raise ValueError('images that are padded to squares need PyTorch')
        mean, std = (
            tuple(values.flatten().tolist())
            for values in (self.model.pixel_mean, self.model.pixel_std)
        )
        return Preprocessing(
            'detectron2', self._min_size, self._max_size, self.model.input_format.lower(), mean,
            std, self.size_divisibility,
        )

    def extract(self, batch: ImageBatch) -> Pyramid:
        """Compute the pyramid ``p2`` .. ``p6``; see :meth:`SplitDetector.extract`."""
        return dict(self.model.backbone(batch.tensor))

    @torch.no_grad()
    def infer(
        self, pyramid: Pyramid, sizes: ImageSizes, max_instances: int | None = None
    ) -> list[Instances]:
        """Turn a pyramid into instances; see :meth:`SplitDetector.infer`.

        Raises:
            RuntimeError: the detector is in training mode.
        """
        from detectron2.modeling.postprocessing import detector_postprocess

        if self.training:
            raise RuntimeError('infer() needs evaluation mode: call eval() first')
        images = _image_list(sizes)
        proposals, _ = self.model.proposal_generator(images, pyramid, None)
        found, _ = self.model.roi_heads(images, pyramid, proposals, None)
        return [
            _instances(detector_postprocess(result[:max_instances], *source))
            for result, source in zip(found, sizes.source, strict=True)
        ]

    def heads(self) -> dict[str, PyramidHead]:
        """Return the semantic branch of a panoptic FPN, where this is one."""
        branch = _semantic_branch(self.model)
        if branch is None:
            return {}
        head = Detectron2SemanticHead(branch, self._semantic_names)
        return {head.output: head.train(self.training)}

    def _check_names(self) -> None:
        """Refuse names that are not as many as what they name."""
        for name, given, wanted in (
            ('keypoint_names', self.keypoint_names, _keypoint_count(self.model)),
            ('semantic_names', self._semantic_names, _semantic_count(self.model)),
        ):
            if len(given) != wanted:
                raise ValueError(f'{len(given)} {name} for a model that needs {wanted}')

    def losses(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Targets],
        hook: PyramidHook | None = None,
    ) -> dict[str, Tensor]:
        """Compute Detectron2's losses; see :meth:`SplitDetector.losses`.

        Raises:
            RuntimeError: the detector is in evaluation mode.
        """
        if not self.training:
            raise RuntimeError('losses() needs training mode: call train() first')
        if len(images) != len(targets):
            raise ValueError(f'{len(images)} images but {len(targets)} targets: give one of each')
        batch = self.preprocess(images)
        truth = [
            self._truth(target, source, valid)
            for target, source, valid in zip(
                targets, batch.sizes.source, batch.sizes.valid, strict=True
            )
        ]
        pyramid = self.extract(batch)
        if hook is not None:
            pyramid = hook(pyramid)
        placeholder = _image_list(batch.sizes)
        with _event_storage(), _without_keypoints(self.model.roi_heads):
            proposals, rpn_losses = self.model.proposal_generator(placeholder, pyramid, truth)
            _, head_losses = self.model.roi_heads(placeholder, pyramid, proposals, truth)
        return {**head_losses, **rpn_losses}

    def rpn_outputs(self, pyramid: Pyramid) -> dict[str, tuple[Tensor, Tensor]]:
        """Compute the RPN's raw outputs; see :meth:`TeacherDetector.rpn_outputs`."""
        levels = [level for level in self.model.proposal_generator.in_features if level in pyramid]
        logits, deltas = self.model.proposal_generator.rpn_head(
            [pyramid[level] for level in levels]
        )
        return {
            level: (scores, offsets.unflatten(1, (-1, 4)))
            for level, scores, offsets in zip(levels, logits, deltas, strict=True)
        }

    def proposals(self, pyramid: Pyramid, sizes: ImageSizes) -> list[Tensor]:
        """Compute the RPN's boxes; see :meth:`TeacherDetector.proposals`."""
        found, _ = self.model.proposal_generator(_image_list(sizes), pyramid, None)
        return [image.proposal_boxes.tensor for image in found]

    def box_outputs(
        self, pyramid: Pyramid, boxes: Sequence[Tensor], sizes: ImageSizes
    ) -> tuple[Tensor, Tensor]:
        """Compute the box head's raw outputs; see :meth:`TeacherDetector.box_outputs`.

        Raises:
            ValueError: the head is not of one stage, as that of a cascade.
        """
        from detectron2.structures import Boxes

        heads = self.model.roi_heads
        if isinstance(heads.box_predictor, torch.nn.ModuleList):
            raise ValueError(f'{type(heads).__name__} has no single box head to learn from')
        features = [pyramid[level] for level in heads.box_in_features]
        pooled = heads.box_pooler(features, [Boxes(one) for one in boxes])
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        return logits, deltas.unflatten(1, (-1, 4))

    def mask_outputs(
        self,
        pyramid: Pyramid,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        sizes: ImageSizes,
    ) -> Tensor:
        """Compute the mask head's raw outputs; see :meth:`TeacherDetector.mask_outputs`."""
        from detectron2.structures import Boxes

        heads = self.model.roi_heads
        if not heads.mask_on:
            return no_mask_outputs(boxes)
        features = [pyramid[level] for level in heads.mask_in_features]
        pooled = heads.mask_pooler(features, [Boxes(one) for one in boxes])
        logits: Tensor = heads.mask_head.layers(pooled)
        chosen = torch.cat([label.to(logits.device) for label in labels])
        if logits.shape[1] == 1:  # one mask for all classes
            chosen = torch.zeros_like(chosen)
        return logits[torch.arange(len(chosen), device=logits.device), chosen].float()

    def _resize(self, source: Size) -> Any:
        """Return the transform from a source size to network scale, ``None`` for none."""
        from detectron2.data import transforms

        if self._min_size == 0:
            return None
        # The augmentation object would draw from NumPy's global generator to find this one size.
        height, width = transforms.ResizeShortestEdge.get_output_shape(
            *source, self._min_size, self._max_size
        )
        valid = (max(height, 1), max(width, 1))
        return transforms.ResizeTransform(*source, *valid)

    def _resized(self, image: Tensor) -> Tensor:
        """Resize one RGB image; returns 3 x h x w float32 in the model's channel order."""
        pixels = image.permute(1, 2, 0).cpu().numpy()
        if self.model.input_format != 'RGB':
            pixels = pixels[:, :, ::-1]
        resize = self._resize((image.shape[1], image.shape[2]))
        if resize is not None:
            pixels = resize.apply_image(pixels)
        return torch.as_tensor(pixels.astype('float32').transpose(2, 0, 1))

    def _truth(self, target: Targets, source: Size, valid: Size) -> Any:
        """Bring ground truth to network scale as Detectron2's ``DatasetMapper`` does."""
        from detectron2.data.detection_utils import filter_empty_instances
        from detectron2.structures import BitMasks, Boxes
        from detectron2.structures import Instances as Annotated

        truth = Annotated(valid)
        boxes = target.boxes.to(self.device, torch.float32).reshape(-1, 4)
        scale = boxes.new_tensor([valid[1] / source[1], valid[0] / source[0]] * 2)
        truth.gt_boxes = Boxes(boxes * scale)
        truth.gt_boxes.clip(valid)
        truth.gt_classes = target.labels.to(self.device, torch.int64)
        masks = torch.zeros(len(target.masks), *valid, dtype=torch.bool)
        resize = self._resize(source)
        for resized, mask in zip(masks, target.masks.cpu(), strict=True):
            pixels = mask.numpy()
            if resize is not None:
                pixels = resize.apply_segmentation(pixels.astype('uint8')) > 0
            resized.copy_(torch.as_tensor(pixels))
        truth.gt_masks = BitMasks(masks.to(self.device))
        return filter_empty_instances(truth)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check an experiment's settings of a detector; Detectron2 need not be installed.

    Raises:
        ValueError: a key is unknown, or a value of another type; the message names it.
    """
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(
            f'unknown keys beside config_file: {", ".join(unknown)}; known are '
            f'{", ".join(SETTINGS)}'
        )
    for name in ('config_file', 'weights'):
        value = settings.get(name)
        if value is not None and (not isinstance(value, str) or not value):
            raise ValueError(f'{name} is {value!r}, not a file or an address')
    if not isinstance(settings.get('partial', False), bool):
        raise ValueError(f'partial is {settings["partial"]!r}, not true or false')
    if settings.get('class_names') is not None:
        check_texts(settings['class_names'], 'class_names')
    overrides = settings.get('overrides')
    if overrides is not None:
        if not isinstance(overrides, Mapping) or not all(isinstance(k, str) for k in overrides):
            raise ValueError(f'overrides is {overrides!r}, not keys and values')
        check_no_number_texts(overrides, 'overrides')


def require_detectron2() -> None:
    """Raise an error that says how to install Detectron2, if it is missing."""
    try:
        import detectron2  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'this model needs Detectron2, which is not installed: run '
            '`scripts/setup.sh --detectron2`, or install it from its source as its INSTALL.md says'
        ) from error


def _check(model: Any) -> None:
    """Raise if a network cannot be cut at p2..p6 and used through its two halves."""
    from detectron2.modeling import GeneralizedRCNN, PanopticFPN

    if not isinstance(model, GeneralizedRCNN) or not any(
        type(model).inference is plain.inference and type(model).forward is plain.forward
        for plain in (GeneralizedRCNN, PanopticFPN)
    ):
        raise ValueError(f'{type(model).__name__} is not a plain GeneralizedRCNN')
    strides = {name: shape.stride for name, shape in model.backbone.output_shape().items()}
    if strides != _LEVEL_STRIDES:
        raise ValueError(f'the backbone gives {strides}, not the pyramid p2..p6 of an FPN')
    if model.proposal_generator is None:
        raise ValueError('the model has no proposal generator')
    if not getattr(model.roi_heads, 'mask_on', False) and not _keypoint_count(model):
        raise ValueError(
            'the model has no mask head and no keypoint head: MSFC needs instance segmentation or '
            'keypoints'
        )
    if _semantic_branch(model) is not None:
        check_class_count(('',) * _semantic_count(model))
    if model.input_format not in ('BGR', 'RGB'):
        raise ValueError(f'the model takes {model.input_format} images, not BGR or RGB')


def _class_names(data_set: str | None, count: int) -> list[str]:
    """Return the classes of a data set if Detectron2 knows just as many; else number them."""
    names = _known_classes(data_set) or []
    return names if len(names) == count else [f'class_{label}' for label in range(count)]


def _known_classes(data_set: str | None, entry: str = 'thing_classes') -> list[str] | None:
    """Return the classes of a data set, ``None`` if Detectron2 does not know them.

    Args:
        data_set: its name.
        entry: of its metadata.
    """
    from detectron2.data import MetadataCatalog

    if data_set not in MetadataCatalog.list():
        return None
    return list(MetadataCatalog.get(data_set).get(entry, [])) or None


def _image_list(sizes: ImageSizes) -> Any:
    """Return what Detectron2's heads take for the images; they read nothing but the sizes."""
    from detectron2.structures import ImageList

    pixels = torch.empty((len(sizes.valid), 3, *sizes.padded), device='meta')
    return ImageList(pixels, list(sizes.valid))


def _instances(result: Any) -> Instances:
    boxes = result.pred_boxes.tensor
    return Instances(
        boxes=boxes,
        scores=result.scores,
        labels=result.pred_classes,
        masks=(
            result.pred_masks.bool()  # uint8 where there are none
            if result.has('pred_masks')
            else torch.zeros((len(boxes), *result.image_size), dtype=torch.bool).to(boxes.device)
        ),
        keypoints=result.pred_keypoints if result.has('pred_keypoints') else None,
    )


class Detectron2SemanticHead(SemanticHead):
    """The semantic branch of a panoptic FPN.

    Args:
        branch: the branch, which the detector has.
        class_names: names of its classes.
    """

    def __init__(self, branch: torch.nn.Module, class_names: tuple[str, ...]) -> None:
        super().__init__()
        self.branch = branch
        self.class_names = class_names

    def logits(self, pyramid: Pyramid) -> Tensor:
        """Return the branch's own output, at the padded input's size."""
        logits: Tensor = self.branch(pyramid)[0]
        return logits


def _semantic_branch(model: Any) -> Any:
    """Return the semantic branch of a model, ``None`` if it has none."""
    return getattr(model, 'sem_seg_head', None)


def _semantic_count(model: Any) -> int:
    """Return the number of classes of a model's semantic branch, 0 if it has none."""
    branch = _semantic_branch(model)
    return 0 if branch is None else int(branch.predictor.out_channels)


def _keypoint_count(model: Any) -> int:
    """Return the number of keypoints that a model finds, 0 if it finds none."""
    if not getattr(model.roi_heads, 'keypoint_on', False):
        return 0
    return int(model.roi_heads.keypoint_head.num_keypoints)


def _further_names(model: Any, data_set: str | None) -> dict[str, list[str]]:
    """Return the names of a model's keypoints and semantic classes, where it has such.

    They are those of a data set, if Detectron2 knows just as many; else they are numbers.
    """
    named: dict[str, list[str]] = {}
    for name, entry, one, count in (
        ('keypoint_names', 'keypoint_names', 'keypoint', _keypoint_count(model)),
        ('semantic_names', 'stuff_classes', 'class', _semantic_count(model)),
    ):
        if count:
            known = _known_classes(data_set, entry) or []
            numbered = [f'{one}_{index}' for index in range(count)]
            named[name] = known if len(known) == count else numbered
    return named


@contextmanager
def _without_keypoints(heads: Any) -> Iterator[None]:
    """Let no keypoint head compute a loss: targets have no keypoints."""
    before = getattr(heads, 'keypoint_on', False)
    if before:
        heads.keypoint_on = False
    try:
        yield
    finally:
        if before:
            heads.keypoint_on = True


def _event_storage() -> Any:
    """Return a context in which Detectron2's heads can log; they insist on one."""
    from detectron2.utils.events import EventStorage, has_event_storage

    return nullcontext() if has_event_storage() else EventStorage()
