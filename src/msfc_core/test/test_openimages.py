"""OpenImages' official files to COCO JSON, on a miniature in the official formats."""

from __future__ import annotations

import csv
import inspect
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from msfc.cli.data import data_openimages
from msfc.cli.main import app
from msfc.data import CocoDataset
from msfc.data.files import hash_of
from msfc.data.openimages import (
    PAPER_CLASSES,
    PAPER_SIZES,
    choose_classes,
    find_files,
    mask_to_rle,
    split_images,
    write_openimages,
)

CLASSES = {'/m/01': 'Cat', '/m/02': 'Dog', '/m/03': 'Mug', '/m/04': 'Unseen'}
SEGMENTATION = (
    'MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks'
)
BOXES = (
    'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,'
    'IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside'
)
SIZES = {'train': 8, 'test': 4}


class Miniature:
    """Writes a miniature of OpenImages: 5 images of ``train``, 3 of ``validation`` by default."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.masks: list[tuple[str, list[str]]] = []
        self.boxes: list[tuple[str, list[str]]] = []
        self.truth: dict[str, list[tuple[str, NDArray[np.uint8]]]] = {}
        (root / 'annotations').mkdir(parents=True)
        rows = [f'{key},{name}' for key, name in CLASSES.items()]
        (root / 'annotations' / 'class-descriptions-boxable.csv').write_text('\n'.join(rows))

    def image(self, split: str, name: str, height: int = 60, width: int = 80) -> None:
        folder = self.root / 'images' / split
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((height, width, 3), int(hash_of(name) * 255), np.uint8)
        cv2.imwrite(str(folder / f'{name}.jpg'), pixels)

    def object(
        self, split: str, image: str, key: str, box: tuple[float, float, float, float],
        mask_size: tuple[int, int] = (120, 160), masked: bool = True, group: bool = False,
        written: bool = True,
    ) -> str:
        """Add an object: an ellipse in its box, x1 y1 x2 y2 as shares of the image."""
        x1, y1, x2, y2 = box
        number = f'{len(self.boxes):08x}'
        name = f'{image}_{key.replace("/", "")}_{number}.png'
        self.boxes.append((split, [
            image, 'xclick', key, '1', *(f'{v:.7f}' for v in (x1, x2, y1, y2)),
            '0', '0', str(int(group)), '0', '0',
        ]))
        if masked:
            self.masks.append((split, [
                name, image, key, number, *(f'{v:.6f}' for v in (x1, x2, y1, y2)), '0.9',
                '0.1 0.2 1;0.3 0.4 0',
            ]))
            height, width = mask_size
            mask = np.zeros(mask_size, np.uint8)
            centre = (round((x1 + x2) / 2 * width), round((y1 + y2) / 2 * height))
            axes = (round((x2 - x1) / 2 * width), round((y2 - y1) / 2 * height))
            cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
            if written:
                folder = self.root / 'masks' / split
                folder.mkdir(parents=True, exist_ok=True)
                # The official masks have one bit per pixel.
                Image.fromarray(mask).convert('1').save(folder / name)
            self.truth.setdefault(image, []).append((key, mask))
        return name

    def finish(self) -> Path:
        folder = self.root / 'annotations'
        for split in sorted({split for split, _ in self.masks}):
            for heading, rows, name in (
                (SEGMENTATION, self.masks, f'{split}-annotations-object-segmentation.csv'),
                (BOXES, self.boxes, f'oidv6-{split}-annotations-bbox.csv'),
            ):
                with (folder / name).open('w', newline='') as file:
                    file.write(heading + '\n')
                    csv.writer(file).writerows(row for own, row in rows if own == split)
        return self.root


def image_name(index: int) -> str:
    return f'{index * 7919 + 1:016x}'


@pytest.fixture
def miniature(tmp_path: Path) -> Miniature:
    made = Miniature(tmp_path / 'openimages')
    for index in range(20):
        split, name = ('train' if index < 12 else 'validation'), image_name(index)
        made.image(split, name)
        made.object(split, name, '/m/01', (0.1, 0.2, 0.5, 0.8))
        made.object(split, name, '/m/02', (0.55, 0.1, 0.95, 0.5), mask_size=(30, 40))
        if index % 2:
            made.object(split, name, '/m/01', (0.6, 0.6, 0.9, 0.9), mask_size=(60, 80))
        made.object(split, name, '/m/02', (0.0, 0.0, 0.2, 0.1), masked=False)
    made.object('train', image_name(0), '/m/03', (0.3, 0.3, 0.6, 0.6))
    return made


def annotations(output: Path, split: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(
        (output / 'annotations' / f'instances_{split}.json').read_text()
    )
    return data


def write(source: Path, output: Path, **options: Any) -> Any:
    return write_openimages(source, output, most_classes=2, sizes=SIZES, workers=2, **options)


def test_whole_way_to_the_data_set(miniature: Miniature, tmp_path: Path) -> None:
    source, output = miniature.finish(), tmp_path / 'out'
    calls: list[tuple[int, int]] = []
    report = write(source, output, progress=lambda done, total: calls.append((done, total)))
    assert report.classes == ['Cat', 'Dog']  # most masks first
    assert (report.missing_images, report.missing_masks, report.unusable_masks) == (0, 0, 0)
    assert report.images_with_masks == 20
    assert report.missing_list is None
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1] == sum(report.images.values())
    names = set()
    for split in ('train', 'test'):
        dataset = CocoDataset(output, split)
        assert dataset.class_names == ('Cat', 'Dog')
        assert len(dataset) == report.images[split] <= SIZES[split]
        for index in range(len(dataset)):
            example = dataset[index]
            entry = dataset.coco.imgs[example.image_id]
            names.add(entry['openimages_id'])
            truth = miniature.truth[entry['openimages_id']]
            wanted = [(key, mask) for key, mask in truth if key in ('/m/01', '/m/02')]
            labels = [{'/m/01': 0, '/m/02': 1}[key] for key, _ in wanted]
            assert example.targets.labels.tolist() == labels
            for mask, (_, source_mask) in zip(example.targets.masks, wanted, strict=True):
                expected = cv2.resize(source_mask, (80, 60), interpolation=cv2.INTER_AREA) > 127
                union = (mask.numpy() | expected).sum()
                assert (mask.numpy() & expected).sum() / union > 0.9
            crowds = [
                k for k in dataset.coco.imgToAnns[example.image_id] if k['iscrowd']
            ]
            assert [k['bbox'] for k in crowds] == [[0.0, 0.0, 16.0, 6.0]]
            assert coco_mask.area(crowds[0]['segmentation']) == 16 * 6
    assert len(names) == sum(report.images.values())
    first = next(k for k in annotations(output, 'train')['annotations'] if not k['iscrowd'])
    assert first['bbox'] == pytest.approx([8, 12, 32, 36], abs=0.01)


def test_wanted_sizes_are_met_where_there_are_enough(
    miniature: Miniature, tmp_path: Path
) -> None:
    report = write_openimages(
        miniature.finish(), tmp_path / 'out', sizes={'train': 3, 'test': 2}, most_classes=2
    )
    assert report.images == {'train': 3, 'test': 2}
    assert report.wanted_images == {'train': 3, 'test': 2}


def test_classes_by_name(miniature: Miniature, tmp_path: Path) -> None:
    source = miniature.finish()
    files = find_files(source)
    assert choose_classes(files) == {'/m/01': 'Cat', '/m/02': 'Dog', '/m/03': 'Mug'}
    assert choose_classes(files, most=1) == {'/m/01': 'Cat'}
    assert choose_classes(files, ['mug', 'CAT']) == {'/m/03': 'Mug', '/m/01': 'Cat'}
    with pytest.raises(ValueError, match='no class Cup'):
        choose_classes(files, ['Cat', 'Cup'])
    with pytest.raises(ValueError, match='no masks of class Unseen'):
        choose_classes(files, ['Unseen'])
    report = write_openimages(source, tmp_path / 'out', ['Mug'], sizes=SIZES)
    assert report.images_with_masks == 1
    assert sum(report.objects.values()) == 1


def test_what_is_missing_is_named_and_made_up_for(miniature: Miniature, tmp_path: Path) -> None:
    source, output = miniature.finish(), tmp_path / 'out'
    chosen = sorted(image_name(k) for k in range(20))
    gone = next((source / 'images').rglob(f'{chosen[0]}.jpg'))
    broken = next((source / 'images').rglob(f'{chosen[1]}.jpg'))
    moved = tmp_path / gone.name
    shutil.move(gone, moved)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-2])
    lost = next((source / 'masks').rglob(f'{chosen[2]}_*.png'))
    lost_data = lost.read_bytes()
    lost.unlink()
    torn = next((source / 'masks').rglob(f'{chosen[3]}_*.png'))
    torn.write_bytes(b'no picture')
    sizes = {'train': 100, 'test': 50}

    report = write_openimages(source, output, most_classes=2, sizes=sizes)
    assert (report.missing_images, report.unreadable_images) == (1, 1)
    assert (report.missing_masks, report.unusable_masks) == (1, 1)
    assert sum(report.images.values()) == 18
    rows = (output / 'missing.csv').read_text().splitlines()
    assert set(rows[1:]) == {
        f'image,{chosen[0]},no file', f'image,{chosen[1]},unreadable or cut off',
        f'mask,{lost.name},no file', f'mask,{torn.name},unreadable or misfit',
    }
    assert (output / 'download.txt').read_text() == f'{gone.parent.name}/{chosen[0]}\n'
    told = ' '.join(report.sentences())
    assert '1 masks are not here' in told
    assert '(100 images were asked for)' in told
    objects = sum(report.objects.values())
    assert json.loads((output / 'report.json').read_text())['missing_masks'] == 1

    shutil.move(moved, gone)
    broken.write_bytes(whole)
    lost.write_bytes(lost_data)
    calls: list[tuple[int, int]] = []
    again = write_openimages(
        source, output, most_classes=2, sizes=sizes,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[0] == (16, 20)  # the four that lacked something are read again
    assert again.unusable_masks == 1
    assert sum(again.images.values()) == 20
    assert sum(again.objects.values()) > objects
    assert (again.missing_images, again.unreadable_images, again.missing_masks) == (0, 0, 0)


def test_a_broken_run_goes_on(miniature: Miniature, tmp_path: Path) -> None:
    source = miniature.finish()
    whole = tmp_path / 'whole'
    write(source, whole)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    output = tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        write(source, output, progress=stop)
    assert not (output / 'annotations' / 'instances_train.json').exists()
    (journal,) = (output / 'annotations' / '.journal').iterdir()
    with journal.open('ab') as file:
        file.write(b'["unfinished')
    calls: list[int] = []
    write(source, output, progress=lambda done, total: calls.append(done))
    assert calls[0] == 4
    for split in SIZES:
        assert annotations(output, split) == annotations(whole, split)


def test_an_image_that_has_changed_is_read_again(miniature: Miniature, tmp_path: Path) -> None:
    """Such as the same images at another size."""
    source, output = miniature.finish(), tmp_path / 'out'
    write(source, output)
    before = annotations(output, 'train')['images'][0]
    name = before['openimages_id']
    for split in ('train', 'validation'):
        if (source / 'images' / split / f'{name}.jpg').exists():
            miniature.image(split, name, 120, 160)
    calls: list[int] = []
    write(source, output, progress=lambda done, total: calls.append(total - done))
    assert calls[0] == 1
    after = annotations(output, 'train')['images'][0]
    assert (before['height'], before['width']) == (60, 80)
    assert after == {**before, 'height': 120, 'width': 160}
    assert CocoDataset(output, 'train')[0].image.shape == (3, 120, 160)


def test_masks_in_zip_files(miniature: Miniature, tmp_path: Path) -> None:
    source = miniature.finish()
    loose = write(source, tmp_path / 'loose')
    for split in ('train', 'validation'):
        folder = source / 'masks' / split
        path = source / f'{split}-masks-0.zip'
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)
        shutil.rmtree(folder)
    zipped = write(source, tmp_path / 'zipped')
    assert zipped.to_dict() == loose.to_dict()
    for split in SIZES:
        one, other = (annotations(tmp_path / k, split) for k in ('loose', 'zipped'))
        assert one == other
    # A damaged mask is named, and ends nothing.
    archive_path = source / 'train-masks-0.zip'
    data = bytearray(archive_path.read_bytes())
    with zipfile.ZipFile(archive_path) as archive:
        used = {k['openimages_id'] for k in annotations(tmp_path / 'zipped', 'train')['images']}
        member = next(
            entry for entry in archive.infolist()
            if entry.filename[:16] in used and 'm01' in entry.filename
        )
    start = member.header_offset + 30 + len(member.filename)
    data[start : start + member.compress_size] = b'\xff' * member.compress_size
    archive_path.write_bytes(data)
    damaged = write(source, tmp_path / 'damaged')
    assert damaged.unusable_masks == 1
    assert member.filename in (tmp_path / 'damaged' / 'missing.csv').read_text()
    (source / 'train-masks-1.zip').write_bytes(b'half a download')
    with pytest.raises(ValueError, match='download it again'):
        write(source, tmp_path / 'broken')


def test_groups_and_turned_masks_are_ignored_regions(tmp_path: Path) -> None:
    made = Miniature(tmp_path / 'openimages')
    for index in range(4):
        made.image('train', image_name(index))
        made.object('train', image_name(index), '/m/01', (0.1, 0.1, 0.4, 0.4))
    made.object('train', image_name(0), '/m/01', (0.5, 0.5, 0.9, 0.9), group=True)
    made.object('train', image_name(1), '/m/01', (0.5, 0.5, 0.9, 0.9), mask_size=(160, 120))
    report = write_openimages(made.finish(), tmp_path / 'out', sizes={'train': 10})
    assert report.objects == {'train': 4}
    assert report.ignored_regions == {'train': 2}
    assert report.unusable_masks == 1


def test_the_command(
    miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = miniature.finish(), tmp_path / 'out'
    arguments = [
        'data', 'openimages', str(source), str(output), '--class', 'Dog', '--class', 'Mug',
        '--train', '3', '--test', '2', '--copy', '--workers', '2',
    ]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert 'train: 3 images with' in told.output
    assert CocoDataset(output, 'train').class_names == ('Dog', 'Mug')
    assert len(CocoDataset(output, 'test')) == 2
    assert not any(path.is_symlink() for path in (output / 'train').iterdir())
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(data_openimages).parameters.items()
    }
    assert {name: defaults[name] for name in PAPER_SIZES} == PAPER_SIZES
    assert defaults['most'] == PAPER_CLASSES

    told = CliRunner().invoke(app, [*arguments[:2], str(tmp_path / 'none'), *arguments[3:]])
    assert told.exit_code == 1
    assert 'is not a folder' in told.stderr

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('msfc.data.openimages.write_openimages', interrupt)
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 130
    assert 'the same command resumes from' in told.output


def test_images_are_copied_or_linked(miniature: Miniature, tmp_path: Path) -> None:
    source = miniature.finish()
    for name, copy in (('linked', False), ('copied', True)):
        write(source, tmp_path / name, copy=copy)
        files = list((tmp_path / name / 'train').iterdir())
        assert files
        assert all(path.is_symlink() != copy for path in files)
        assert all(cv2.imread(str(path)) is not None for path in files)


def test_output_inside_the_source(miniature: Miniature) -> None:
    source = miniature.finish()
    one = write(source, source / 'coco')
    assert write(source, source / 'coco').to_dict() == one.to_dict()


def csv_files(source: Path) -> list[Path]:
    return sorted((source / 'annotations').glob('*.csv'))


def test_a_byte_order_mark_changes_nothing(miniature: Miniature, tmp_path: Path) -> None:
    source = miniature.finish()
    plain = write(source, tmp_path / 'plain')
    for path in csv_files(source):
        path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    assert write(source, tmp_path / 'marked').to_dict() == plain.to_dict()
    for split in SIZES:
        assert annotations(tmp_path / 'marked', split) == annotations(tmp_path / 'plain', split)


def test_repeated_rows_count_once(miniature: Miniature, tmp_path: Path) -> None:
    source = miniature.finish()
    plain = write(source, tmp_path / 'plain')
    rows = 0
    for path in csv_files(source):
        heading, *lines = path.read_text().splitlines()
        if path.name.startswith('class-'):
            continue
        repeated = [*lines, *(line for line in lines if '/m/03' in line), *lines[:7]] * 12
        path.write_text('\n'.join([heading, *repeated]) + '\n')
        rows += len(repeated) - len(lines)
    twice = write(source, tmp_path / 'twice')
    assert 0 < twice.repeated_rows <= rows
    assert {**twice.to_dict(), 'repeated_rows': 0} == plain.to_dict()
    assert any('rows of the CSV files are repeated' in line for line in twice.sentences())
    for split in SIZES:
        assert annotations(tmp_path / 'twice', split) == annotations(tmp_path / 'plain', split)


@pytest.mark.parametrize('number', ['nan', 'inf', '-inf', 'wide', ''])
@pytest.mark.parametrize('suffix', ['object-segmentation.csv', 'bbox.csv'])
def test_boxes_that_are_no_numbers_are_refused(
    miniature: Miniature, tmp_path: Path, number: str, suffix: str
) -> None:
    source = miniature.finish()
    (path,) = source.rglob(f'*train-annotations-{suffix}')
    heading, first, *rows = path.read_text().splitlines()
    values = first.split(',')
    values[heading.split(',').index('BoxXMin' if 'object' in suffix else 'XMin')] = number
    path.write_text('\n'.join([heading, ','.join(values), *rows]) + '\n')
    sizes = {'train': 20, 'test': 10}
    with pytest.raises(ValueError, match=f'{suffix}, image {image_name(0)}'):
        write_openimages(source, tmp_path / 'out', most_classes=2, sizes=sizes)


def test_wrong_files_are_refused(miniature: Miniature, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='not a folder'):
        find_files(tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='class-descriptions'):
        find_files(tmp_path / 'empty')
    source = miniature.finish()
    path = source / 'annotations' / 'train-annotations-object-segmentation.csv'
    text = path.read_text()
    path.write_text(text.replace('BoxYMax', 'Bottom'))
    with pytest.raises(ValueError, match='no column BoxYMax'):
        write(source, tmp_path / 'out')
    path.write_text(text[: text.rindex('m01') - 3])
    with pytest.raises(ValueError, match='cut off'):
        write(source, tmp_path / 'out')
    path.write_bytes(b'\xff\xfe' + text.encode())
    with pytest.raises(ValueError, match=r'segmentation\.csv, behind line'):
        write(source, tmp_path / 'out')
    path.write_text(text)
    for copied in (path, source / 'annotations' / 'oidv6-train-annotations-bbox.csv'):
        again = source / copied.name.removeprefix('oidv6-')
        shutil.copyfile(copied, again)
        with pytest.raises(ValueError, match='are both of train: remove one'):
            write(source, tmp_path / 'out')
        again.unlink()
    shutil.rmtree(source / 'images')
    with pytest.raises(ValueError, match=r'none of the 20 images .*download\.txt'):
        write(source, tmp_path / 'out')
    assert len((tmp_path / 'out' / 'download.txt').read_text().splitlines()) <= 12


@settings(max_examples=40)
@given(
    st.integers(8, 40), st.integers(8, 40), st.integers(8, 40), st.integers(8, 40),
    st.integers(0, 5),
)
def test_resized_masks_keep_their_share(h: int, w: int, height: int, width: int, cut: int) -> None:
    mask = np.zeros((h, w), np.uint8)
    mask[:, : w // 2 + cut % 3] = 1
    rle = mask_to_rle(mask, (height, width))
    assert rle is not None
    got = coco_mask.decode(rle)
    assert got.shape == (height, width)
    assert abs(got.mean() - mask.mean()) <= 1 / width + 1 / w
    assert (got == got[:1]).all()


def test_mask_kinds() -> None:
    flat = np.zeros((10, 10), np.uint8)
    assert mask_to_rle(flat, (10, 10)) is None
    flat[2:5, 2:5] = 1
    colours = np.zeros((10, 10, 4), np.uint8)
    colours[..., 3] = 255  # opaque is not object
    colours[2:5, 2:5, 0] = 255
    assert mask_to_rle(flat, (10, 10)) == mask_to_rle(colours, (10, 10))
    assert mask_to_rle(flat > 0, (10, 10)) == mask_to_rle(flat, (10, 10))


@given(st.integers(1, 300), st.integers(0, 40), st.integers(1, 40))
def test_splits_depend_on_ids_only(count: int, test: int, train: int) -> None:
    names = [image_name(k) for k in range(count)]
    sizes = {'train': train, 'test': test}
    chosen = split_images(names, sizes)
    assert split_images(reversed(names), sizes) == chosen
    assert not set(chosen['train']) & set(chosen['test'])
    assert len(chosen['train']) <= train
    assert len(chosen['test']) <= test
    fewer = split_images(names[: count // 2], sizes)
    for one, other in (('train', 'test'), ('test', 'train')):
        assert not set(fewer[one]) & set(chosen[other])


def test_splits_of_the_papers_size() -> None:
    names = [image_name(k) for k in range(4000)]
    chosen = split_images(names, {'train': 1761, 'test': 87})
    assert {name: len(images) for name, images in chosen.items()} == {'train': 1761, 'test': 87}
    with pytest.raises(ValueError, match='cannot be chosen'):
        split_images(names, {'train': 0})
