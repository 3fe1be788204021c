"""Measuring a model: average precision by COCO's rules, and the bits it took."""

from msfc.evaluation.coco_map import average_precision, evaluate_instances, to_coco_results

__all__ = ['average_precision', 'evaluate_instances', 'to_coco_results']
