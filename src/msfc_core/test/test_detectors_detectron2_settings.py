"""What is checked of an experiment's Detectron2 detector without Detectron2."""

from __future__ import annotations

import pytest
import yaml

from msfc.detectors.detectron2 import check_settings
from msfc.detectors.detectron2_config import with_num_classes

GOOD = {
    'type': 'detectron2', 'config_file': 'a.yaml', 'weights': 'R-50.pkl', 'partial': True,
    'overrides': {'MODEL.ROI_HEADS.NUM_CLASSES': 4, 'MODEL.RESNETS.NORM': 'GN'},
}


@pytest.mark.parametrize(('changes', 'words'), [
    ({'weight': 'a'}, 'unknown keys beside config_file: weight'),
    ({'config_file': 3}, 'config_file is 3, not a file'),
    ({'weights': True}, 'weights is True, not a file'),
    ({'partial': 'yes'}, "partial is 'yes', not true or false"),
    ({'class_names': 'cup'}, 'class_names is .cup., not a list'),
    ({'overrides': ['a']}, 'overrides is .*, not keys and values'),
    ({'overrides': {'SOLVER.BASE_LR': '1e-3'}}, r"BASE_LR is the text '1e-3': write 1\.0e-3"),
])
def test_impossible_settings_are_named(changes, words):
    check_settings(GOOD)
    with pytest.raises(ValueError, match=words):
        check_settings({**GOOD, **changes})


def test_classes_of_a_yaml_configuration():
    text = yaml.safe_dump({'VERSION': 2, 'MODEL': {'ROI_HEADS': {'NUM_CLASSES': 80, 'A': 1}}})
    made = with_num_classes({'format': 'yaml', 'model': text}, 3)
    assert yaml.safe_load(made['model'])['MODEL']['ROI_HEADS'] == {'NUM_CLASSES': 3, 'A': 1}
    with pytest.raises(ValueError, match='lacks'):
        with_num_classes({'format': 'yaml', 'model': 'a: 1'}, 3)


def test_classes_of_a_lazy_configuration():
    tree = {
        'backbone': {'num_classes': None},
        'roi_heads': {
            'num_classes': 80,
            'box_predictor': {'num_classes': 80},
            'box_predictors': [{'num_classes': 80}],
            'mask_head': {'num_classes': 1, '_target_': 'a.b'},  # of no class in particular
        },
    }
    made = with_num_classes({'format': 'lazy', 'model': tree, 'min_size': 8}, 3)
    assert made == {'format': 'lazy', 'min_size': 8, 'model': {
        'backbone': {'num_classes': None},
        'roi_heads': {
            'num_classes': 3,
            'box_predictor': {'num_classes': 3},
            'box_predictors': [{'num_classes': 3}],
            'mask_head': {'num_classes': 1, '_target_': 'a.b'},
        },
    }}
    with pytest.raises(ValueError, match='roi_heads'):
        with_num_classes({'format': 'lazy', 'model': {}}, 3)
