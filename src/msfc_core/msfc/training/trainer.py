"""The training loop: AMP, DDP and checkpoints by Lightning Fabric; one loop for all steps."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from msfc.codecs.base import build_codec
from msfc.codecs.learned import LearnedCodec
from msfc.data import CocoDataset, Example
from msfc.data.digests import dataset_digest
from msfc.detectors import build_detector
from msfc.detectors.base import SplitDetector, TeacherDetector
from msfc.evaluation.evaluate import ModelMetrics, evaluate_model
from msfc.evaluation.report import weights_digest
from msfc.evaluation.versions import library_versions
from msfc.files import ProcessLock, write_atomically
from msfc.journal import Journal
from msfc.model import SplitModel
from msfc.model_file import describe_model, load_model, save_model, stored_weights
from msfc.progress import TrainingProgress
from msfc.training.batches import Batch, TrainingBatches, iteration_seed
from msfc.training.checkpoint import (
    find_endless,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from msfc.training.codec_objective import AnswerBatches, CodecTraining, DistillObjective
from msfc.training.distill import parameter_groups, take_statistics
from msfc.training.experiment import Experiment, Step
from msfc.training.interrupt import deferred_interrupt
from msfc.training.log import append_log, plot_curves, rewind_log
from msfc.training.optimizers import Muon
from msfc.training.teacher import Mirrored, keep_answers, read_answer, stack_pyramids
from msfc.types import Pyramid

Report = Callable[[str, list[ModelMetrics]], None]
"""Called with a step's name and its figures on the validation split."""

CHECKPOINT = 'checkpoint.safetensors'
LOG = 'log.jsonl'
CURVES = 'curves.png'
FIGURES = 'figures.json'
JOURNAL = '.journal.jsonl'
ANSWERS = 'answers'
STATISTICS_IMAGES = 100
"""Of so many images a learned codec's statistics are taken, and its tables fitted."""


class TrainingObjective(nn.Module):
    """The loss of one training step as a module, so that DDP sees every forward pass."""

    def __init__(
        self, model: SplitModel, step: Step, rates: CodecTraining | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.step = step
        self.rates = rates

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by name; their sum is minimised."""
        images = [example.image for example in batch.examples]
        targets = [example.targets for example in batch.examples]
        if self.step.trains == 'detector':
            return self._weighted(self.model.detector.losses(images, targets))
        extra: dict[str, Tensor] = {}

        def through_codec(pyramid: Pyramid) -> Pyramid:
            if self.rates is None:
                # No quantiser here: the paper quantises at inference only.
                rebuilt, _ = self.model.require_codec()(pyramid)
            else:
                rebuilt, extra['loss_rate'] = self.rates.rebuild(pyramid)
                extra.update(self.rates.entropy_losses())
            if self.step.feature_weight:
                distance = feature_distance(rebuilt, pyramid)
                extra['loss_features'] = self.step.feature_weight * distance
            return rebuilt

        losses = self.model.detector.losses(images, targets, through_codec)
        return {**self._weighted(losses), **extra}

    def _weighted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        weights = self.step.loss_weights
        unknown = sorted(set(weights) - set(losses))
        if unknown:
            raise ValueError(
                f'step {self.step.name}: no losses {unknown} to weight; there are {sorted(losses)}'
            )
        return {name: loss * weights.get(name, 1.0) for name, loss in losses.items()}


def make_objective(
    model: SplitModel, step: Step, rates: CodecTraining | None
) -> TrainingObjective | DistillObjective:
    """Return the losses of a step."""
    if step.objective == 'distill' and rates is not None:
        return DistillObjective(rates)
    return TrainingObjective(model, step, rates)


def feature_distance(rebuilt: Pyramid, original: Pyramid) -> Tensor:
    """Return the mean squared difference per level over that level's variance, averaged.

    The original is the goal and gets no gradient.
    """
    distances = []
    for level, goal in original.items():
        goal = goal.detach().float()
        error = functional.mse_loss(rebuilt[level].float(), goal)
        distances.append(error / goal.var().clamp_min(1e-6))
    return torch.stack(distances).mean()


def prepare(model: SplitModel, step: Step) -> None:
    """Set what a step trains, and the modes of all modules.

    Frozen batch norm layers use their running statistics and keep them.

    Raises:
        ValueError: the step freezes parameters that there are none of.
    """
    model.train()
    trained: dict[str, nn.Module] = {
        'detector': model.detector, 'codec': model.require_codec(),
        'encoder': model.require_codec().analysis, 'all': model,
    }
    model.requires_grad_(False)
    trained[step.trains].requires_grad_(True)
    for start in step.freeze:
        parameters = [p for name, p in model.named_parameters() if name.startswith(start)]
        if not parameters:
            raise ValueError(f'step {step.name}: freeze: no parameter begins with {start!r}')
        for parameter in parameters:
            parameter.requires_grad_(False)
    if step.objective == 'distill':
        model.detector.eval()  # its answers are the goal
    frozen = [model.detector] if step.trains in ('codec', 'encoder') else []
    for part in [model] if step.freeze_norms else frozen:
        for module in part.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def make_optimizer(model: nn.Module, step: Step) -> torch.optim.Optimizer:
    """Return the optimiser of what :func:`prepare` has left to train."""
    trained: Any = [p for p in model.parameters() if p.requires_grad]
    settings: dict[str, Any] = {'lr': step.learning_rate, 'weight_decay': step.weight_decay}
    if step.byte_targets:
        momentum = step.momentum if step.optimizer == 'muon' else None
        trained = parameter_groups(
            model, step.learning_rate, step.gains_factor, momentum, step.entropy_factor
        )
        settings['betas'] = (0.9, 0.98)  # the goal moves: prices follow the bytes
    if step.optimizer == 'sgd':
        return torch.optim.SGD(trained, momentum=step.momentum, **settings)
    if step.optimizer == 'muon':
        return Muon(trained, **settings)
    return torch.optim.AdamW(trained, **settings)


def learning_rate(step: Step, iteration: int) -> float:
    """Return the learning rate: a linear rise, the peak for a while, then a cosine to zero."""
    rise = step.warmup * step.iterations
    if iteration < rise:
        return step.learning_rate * (iteration + 1) / (rise + 1)
    fall = rise + step.hold * step.iterations
    done = max(0.0, iteration - fall) / max(1.0, step.iterations - fall)
    return step.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def build_model(
    experiment: Experiment,
    class_names: Sequence[str],
    detector: SplitDetector | None = None,
    notes: list[str] | None = None,
) -> SplitModel:
    """Build the model that an experiment starts with; its seed decides random weights.

    A model to start from may know other classes: then its class layers begin anew.

    Args:
        experiment: the experiment.
        class_names: of the data set.
        detector: to start from, with a new codec, in place of what the experiment says.
        notes: gets sentences on what the user may not expect.

    Raises:
        ValueError: a detector or codec of such settings cannot be built, or it has other classes.
    """
    torch.manual_seed(experiment.seed)
    codec = None
    if detector is None and experiment.start_from:
        start = load_model(experiment.start_from)
        detector, codec = start.detector, start.codec
        if tuple(detector.class_names) != tuple(class_names):
            sentence = (
                f'{experiment.start_from} knows the classes {", ".join(detector.class_names)}; '
                f'the data set has {", ".join(class_names)}: the layers that tell classes apart '
                f'({", ".join(detector.class_layers)}) begin anew, all else is kept'
            )
            if experiment.steps[0].trains in ('codec', 'encoder'):
                raise ValueError(f'{sentence}; the first step must train them')
            detector = detector.with_classes(class_names)
            if notes is not None:
                notes.append(sentence)
        if experiment.detector:
            detector = _with_settings(detector, experiment.detector)
    elif detector is None:
        detector = _new_detector(experiment.detector, class_names)
    if tuple(detector.class_names) != tuple(class_names):
        raise ValueError(
            f'the detector knows {", ".join(detector.class_names)}; the data set has '
            f'{", ".join(class_names)}'
        )
    if experiment.codec_from:
        codec = load_model(experiment.codec_from).require_codec()
    if codec is None:
        codec = build_codec({'channels': detector.feature_channels, **experiment.codec})
    return SplitModel(detector, codec, experiment.rate)


def _new_detector(settings: dict[str, Any], class_names: Sequence[str]) -> SplitDetector:
    """Build an experiment's detector: from a Detectron2 file, or from its settings alone."""
    if settings.get('type') == 'detectron2' and 'config_file' in settings:
        from msfc.detectors.detectron2 import Detectron2Detector

        return Detectron2Detector.from_settings(settings, class_names)
    return build_detector({'class_names': list(class_names), **settings})


def _with_settings(detector: SplitDetector, settings: dict[str, Any]) -> SplitDetector:
    """Return a detector with other settings, such as input sizes, and the same weights."""
    config = detector.config()
    unknown = sorted(set(settings) - set(config))
    if unknown:
        raise ValueError(
            f'detector: unknown settings {unknown} beside start_from; that model has '
            f'{sorted(config)}'
        )
    changed = build_detector({**config, **settings})
    try:
        changed.load_state_dict(detector.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f'detector: the weights of start_from do not fit the settings {sorted(settings)}: '
            'only those that change no weight can differ, such as min_size'
        ) from error
    return changed


class Trainer:
    """Runs the steps of an experiment; what is finished or half done is taken up again.

    Writes ``<output>/<step>/model.safetensors``, ``model.json`` and ``figures.json`` per finished
    step, ``<output>/log.jsonl``, ``<output>/curves.png`` and the checkpoint of the current step.
    With several processes, the first one writes; all must see the same folder.

    Args:
        experiment: what to train.
        data: folder of a COCO-format data set.
        output: folder for everything that is written.
        fabric: launched Lightning Fabric; decides devices, precision and processes.
        workers: processes that read data.
        checkpoint_every: seconds between checkpoints.
        progress: called now and then with where the training is, in the first process.
        report: called with the figures of each step, in the first process.
        log_every: iterations between log entries.
        detector: to start from, with a new codec, in place of what the experiment says.

    Attributes:
        notes: sentences on what the user may not expect; more are added while it runs.

    Raises:
        OSError: a file of the data set is missing.
        ValueError: the model cannot be built, or the data set is of no use.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Path,
        output: Path,
        fabric: Fabric,
        workers: int = 1,
        checkpoint_every: float = 120.0,
        progress: TrainingProgress | None = None,
        report: Report | None = None,
        log_every: int = 20,
        detector: SplitDetector | None = None,
    ) -> None:
        self.experiment, self.output, self.fabric = experiment, output, fabric
        self.workers, self.checkpoint_every, self.log_every = workers, checkpoint_every, log_every
        self.progress, self.report = progress, report
        self.dataset = CocoDataset(data, experiment.train_split, only_with_objects=True)
        empty = [CocoDataset(data, name) for name in [experiment.empty_split] if name]
        self._parts = [self.dataset, *empty]
        self.examples: ConcatDataset[Example] = ConcatDataset(self._parts)
        self.validation = (
            CocoDataset(data, experiment.val_split) if experiment.val_images else None
        )
        if self.validation and self.validation.class_names != self.dataset.class_names:
            raise ValueError(
                f'{data}: the splits {experiment.train_split} and {experiment.val_split} have '
                'different classes'
            )
        self.notes: list[str] = []
        self._skipped = 0
        self._codec_training: CodecTraining | None = None
        self._sources: dict[str, str] = {}
        self.model = build_model(experiment, self.dataset.class_names, detector, self.notes)
        # Not left to Fabric: the optimiser's state is loaded to where its parameters are.
        self.model.to(fabric.device).to(memory_format=torch.channels_last)
        output.mkdir(parents=True, exist_ok=True)

    def run(self) -> SplitModel:
        """Train all steps and return the model in evaluation mode.

        Raises:
            KeyboardInterrupt: on Ctrl-C, with a checkpoint written.
            ValueError: the output folder holds a run of other settings or data, or one that goes
                on, or weights are not finite any more.
            OSError: a file cannot be written; the last checkpoint stays.
        """
        with self._alone():
            return self._run()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second run out of the output folder."""
        if not self.fabric.is_global_zero:
            yield
            return
        try:
            lock = ProcessLock(self.output)
        except BlockingIOError:
            raise ValueError(
                f'{self.output} is in use by another run: wait for its end, or choose another '
                'output folder'
            ) from None
        with lock:
            yield

    def _run(self) -> SplitModel:
        self._sources = self._read_sources()
        self._check_checkpoint()
        for step in self.experiment.steps:
            folder = self.output / step.name
            if (folder / 'model.json').is_file():
                self._load_finished(step)
            else:
                self._run_step(step)
                if self.fabric.is_global_zero:
                    self._save_result(step)
            if self.fabric.is_global_zero:
                self._measure(step)
            self.fabric.barrier()
        return self.model.eval()

    def _read_sources(self) -> dict[str, str]:
        """Return what the training is made from, besides the settings: data, and the start."""
        if not self.fabric.is_global_zero:
            return {}

        def show(done: int, total: int) -> None:
            if self.progress:
                self.progress('reading the pictures', done, total, {})

        with Journal(self.output / JOURNAL) as journal:
            data = [dataset_digest(part, None, journal, show) for part in self._parts]
        sources = {'data': ' '.join(data)}
        for name in ('start_from', 'codec_from'):
            path = getattr(self.experiment, name)
            if path:
                sources[name.replace('_from', '')] = stored_weights(describe_model(path))
        return sources

    def _check_sources(self, there: Any, where: Path) -> None:
        """Refuse what was trained on other data, or from another model.

        Raises:
            ValueError: it was.
        """
        for name, words in (
            ('data', 'on other data'), ('start', 'from another start_from'),
            ('codec', 'from another codec_from'),
        ):
            known = there.get(name) if isinstance(there, dict) else None
            if known is not None and self._sources.get(name, known) != known:
                raise ValueError(
                    f'{where} was trained {words}: choose another output folder, or delete it'
                )

    def _check_checkpoint(self) -> None:
        """Refuse a checkpoint of other settings, before it is overwritten."""
        path = self.output / CHECKPOINT
        progress = read_progress(path)
        if progress is None:
            return
        steps = {step.name: step for step in self.experiment.steps}
        if progress['step'] not in steps:
            raise ValueError(
                f'{path} is in step {progress["step"]}, which this experiment does not have: '
                'choose another output folder, or delete it'
            )
        self._check_settings(steps[progress['step']], progress.get('settings'), path)
        self._check_sources(progress.get('sources'), path)

    def _check_settings(self, step: Step, settings: str | None, where: Path) -> None:
        # Models from elsewhere do not say.
        if not self.experiment.made(step, settings):
            raise ValueError(
                f'{where} was made with other settings of this experiment: undo the change, '
                'choose another output folder, or delete it'
            )

    def _load_finished(self, step: Step) -> None:
        folder = self.output / step.name
        extra = describe_model(folder)['extra']
        self._check_settings(step, extra.get('settings'), folder)
        self._check_sources(extra.get('sources'), folder)
        stored = load_model(folder)
        # Of the same settings, what it has besides its weights may have been changed.
        same = stored.config() == self.model.config() or (
            'settings' in extra and _shapes(stored) == _shapes(self.model)
        )
        if not same:
            raise ValueError(
                f'{folder} has a model of another architecture than this experiment: choose '
                'another output folder, or delete it'
            )
        self.model.load_state_dict(stored.state_dict())

    def _measure(self, step: Step) -> None:
        """Measure a finished step on the validation split, if that was not done."""
        if self.validation is None:
            return
        path = self.output / step.name / FIGURES
        # The first step's codec is untrained: its detector is measured without one.
        model = SplitModel(self.model.detector) if step.trains == 'detector' else self.model
        key = f'figures {step.name}'
        with Journal(self.output / JOURNAL) as journal:
            measured = {
                'data': dataset_digest(self.validation, self.experiment.val_images, journal),
                'images': self.experiment.val_images,
                'weights': weights_digest(model),
                'rate': model.rate,
                'versions': library_versions(),
            }
            if path.is_file() and journal.get(key) == measured:
                return

        def show(done: int, total: int) -> None:
            if self.progress:
                self.progress(f'{step.name}, validation', done, total, {})

        figures = evaluate_model(
            model, self.validation, limit=self.experiment.val_images, progress=show
        )
        write_atomically(path, json.dumps([row.to_dict() for row in figures], indent=2) + '\n')
        with Journal(self.output / JOURNAL) as journal:
            journal.write(key, measured)
        if self.report:
            self.report(step.name, figures)

    def _run_step(self, step: Step) -> None:
        fabric, checkpoint = self.fabric, self.output / CHECKPOINT
        prepare(self.model, step)
        self._codec_training = CodecTraining(self.model, step) if step.byte_targets else None
        if self._codec_training:
            self._codec_training.to(fabric.device)
        optimizer = make_optimizer(self.model, step)
        start, self._skipped = 0, 0
        done = read_progress(checkpoint)
        answers = self._answers(step)
        if done and done['step'] == step.name:
            load_checkpoint(checkpoint, self._codec_training or self.model, optimizer)
            start, self._skipped = done['iteration'], done.get('skipped', 0)
        elif step.byte_targets:
            self._take_statistics(step, answers)
        objective = make_objective(self.model, step, self._codec_training)
        if fabric.is_global_zero:
            rewind_log(self.output / LOG, step.name, start)
        wrapped, optimizer = fabric.setup(objective, optimizer)
        loader: DataLoader[Any] = DataLoader(
            self._batches(step, answers), batch_size=None, sampler=range(start, step.iterations),
            num_workers=self.workers, prefetch_factor=2 if self.workers else None,
        )
        saved = time.monotonic()
        with deferred_interrupt() as interrupt:
            for iteration, batch in zip(range(start, step.iterations), loader, strict=True):
                rate = learning_rate(step, iteration)
                for group in optimizer.param_groups:
                    group['lr'] = rate * group.get('factor', 1.0)
                losses = self._iterate(step, iteration, batch, wrapped, optimizer)
                last = iteration + 1 == step.iterations
                if iteration % self.log_every == 0 or last:
                    self._log(step, iteration, rate, losses)
                stop = self._agreed(interrupt)
                due = time.monotonic() - saved >= self.checkpoint_every and not last
                # The other processes need not wait: they stop at their next exchange of gradients.
                if (stop or due) and fabric.is_global_zero:
                    self._save(step, iteration + 1, optimizer)
                    saved = time.monotonic()
                if stop:
                    fabric.barrier()
                    raise KeyboardInterrupt
        if self._codec_training:
            self._codec_training.finish()
            self._fit_tables(step, answers)
        if fabric.is_global_zero:
            plot_curves(self.output / LOG, self.output / CURVES)

    def _batches(self, step: Step, answers: list[Path]) -> Dataset[Any]:
        ranks = (self.fabric.global_rank, self.fabric.world_size)
        settings = (step.batch_size, self.experiment.seed, step.name, *ranks)
        if answers:
            return AnswerBatches(answers, *settings)
        return TrainingBatches(self.examples, *settings, self.experiment.augment)

    def _answers(self, step: Step) -> list[Path]:
        """Return the kept answers of the detector to the training images, if a step needs them."""
        if step.objective != 'distill' or not step.keep_answers:
            return []
        detector = self.model.detector
        if not isinstance(detector, TeacherDetector):
            return []  # the objective says so

        def show(done: int, total: int) -> None:
            if self.progress:
                self.progress(f'{step.name}, answers', done, total, {})

        examples = self.examples
        if step.mirror_answers:
            examples = ConcatDataset([examples, Mirrored(examples)])
        # The first process asks; the others find its answers.
        if self.fabric.is_global_zero:
            keep_answers(detector, examples, self.output / ANSWERS, show)
        self.fabric.barrier()
        return keep_answers(detector, examples, self.output / ANSWERS)

    def _fit_tables(self, step: Step, answers: list[Path]) -> None:
        """Fit a trained codec's tables of probabilities to some of the training images."""
        codec = self.model.codec
        if isinstance(codec, LearnedCodec) and answers and step.trains == 'codec':
            codec.eval()
            device = self.fabric.device
            codec.fit_tables(
                stack_pyramids([read_answer(path).to(device)]) for path in _spread(answers)
            )

    @torch.no_grad()
    def _take_statistics(self, step: Step, answers: list[Path]) -> None:
        """Give a codec that is not trained yet the mean and spread of the pyramids."""
        codec, detector = self.model.codec, self.model.detector
        if not isinstance(codec, LearnedCodec) or codec.synthesis.statistics.taken():
            return
        if answers:
            files = _spread(answers)
            take_statistics(codec, (stack_pyramids([read_answer(path)]) for path in files))
            return
        detector.eval()
        chosen = range(0, len(self.examples), max(1, len(self.examples) // STATISTICS_IMAGES))
        take_statistics(
            codec,
            (
                detector.extract(detector.preprocess([self.examples[index].image]))
                for index in chosen[:STATISTICS_IMAGES]
            ),
        )
        prepare(self.model, step)

    def _agreed(self, interrupt: threading.Event) -> bool:
        """Return whether some process was interrupted: all must stop after the same iteration."""
        if self.fabric.world_size == 1:
            return interrupt.is_set()
        wish = torch.tensor(float(interrupt.is_set()), device=self.fabric.device)
        agreed: Any = self.fabric.all_reduce(wish, reduce_op='max')
        return bool(agreed > 0)

    def _iterate(
        self,
        step: Step,
        iteration: int,
        batch: Batch,
        objective: Any,
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, Tensor]:
        # Proposal sampling draws from the global generator: seed it, for an exact resume.
        torch.manual_seed(
            iteration_seed(self.experiment.seed, step.name, iteration, self.fabric.global_rank)
        )
        if self._codec_training:
            ranks = (self.fabric.global_rank, self.fabric.world_size)
            self._codec_training.begin(iteration, self.experiment.seed, *ranks)
        losses: dict[str, Tensor] = objective(batch)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        self.fabric.backward(total)
        norm: Any = self.fabric.clip_gradients(
            objective, optimizer, max_norm=step.clip_norm, error_if_nonfinite=False
        )
        # The gradients' norm is the same in all processes, a loss is not.
        if torch.isfinite(norm):
            optimizer.step()
            if self._codec_training:
                self._codec_training.after_step()
        else:
            self._skipped += 1
            self._check_finite(step, iteration)
        return {**losses, 'loss': total}

    def _log(self, step: Step, iteration: int, rate: float, losses: dict[str, Tensor]) -> None:
        if not self.fabric.is_global_zero:
            return
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        entry = {'step': step.name, 'iteration': iteration, 'learning_rate': rate, **values}
        if self._skipped:
            entry['skipped'] = self._skipped
        append_log(self.output / LOG, entry)
        if self.progress:
            self.progress(step.name, iteration + 1, step.iterations, values)

    def _check_finite(self, step: Step, iteration: int) -> None:
        """Stop where there is nothing left to train.

        Raises:
            ValueError: weights or statistics are not finite.
        """
        endless = find_endless(self.model.state_dict())
        if endless:
            raise ValueError(
                self._endless_words(step, iteration, f'{endless} is not finite')
            )

    def _endless_words(self, step: Step, iteration: int, what: str) -> str:
        kept = self.output / CHECKPOINT
        last = f'{kept} is the last good state; ' if kept.is_file() else ''
        return (
            f'step {step.name}, iteration {iteration}: {what}, so nothing is saved. '
            f"{last}lower the step's learning_rate or clip_norm, then "
            f'{f"delete {kept} and " if last else ""}run again: finished steps stay'
        )

    def _save(self, step: Step, iteration: int, optimizer: torch.optim.Optimizer) -> None:
        progress = {
            'step': step.name,
            'iteration': iteration,
            'settings': self.experiment.settings_digest(step),
            'sources': self._sources,
            'skipped': self._skipped,
        }
        try:
            state = self._codec_training or self.model
            save_checkpoint(self.output / CHECKPOINT, state, optimizer, progress)
        except ValueError as error:
            raise ValueError(self._endless_words(step, iteration, str(error))) from error
        plot_curves(self.output / LOG, self.output / CURVES)

    def _save_result(self, step: Step) -> None:
        """Write a finished step's model, in full precision: the next step goes on from it."""
        self._check_finite(step, step.iterations)
        if self._skipped:
            self.notes.append(
                f'step {step.name}: {self._skipped} of {step.iterations} iterations changed no '
                'weights, since their gradients were not finite'
            )
        if self._skipped == step.iterations:
            raise ValueError(f'{self.notes[-1]}: nothing was trained')
        extra = {
            'step': step.name,
            'settings': self.experiment.settings_digest(step),
            'sources': self._sources,
            'notes': self.notes,
        }
        save_model(self.model, self.output / step.name, half=False, extra=extra)
        (self.output / CHECKPOINT).unlink(missing_ok=True)


def _spread(paths: list[Path]) -> list[Path]:
    """Return some of many files, spread over them all."""
    return paths[:: max(1, len(paths) // STATISTICS_IMAGES)][:STATISTICS_IMAGES]


def _shapes(model: SplitModel) -> dict[str, Any]:
    """Return what the weights of a model have to fit."""
    codec = None if model.codec is None else model.codec.config()
    return {
        'codec': codec,
        'classes': model.class_names,
        **{name: tensor.shape for name, tensor in model.state_dict().items()},
    }
