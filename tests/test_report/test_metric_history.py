"""Recorded metrics are put in order, and those of FeatureFocusMetric are recognized."""

from mmdet_featviz.report.metric_history import MetricHistory, order_by_time, order_metrics


def test_evaluations_are_ordered_by_time():
    assert order_by_time(['test', 'epoch_10', 'epoch_2', 'epoch_2']) == ['epoch_2', 'epoch_10', 'test']
    assert list(MetricHistory(dict(metrics=dict(iter_500=dict(a=1), iter_1000=dict(a=2)))).evaluations) == [
        'iter 500',
        'iter 1000',
    ]


def test_the_mean_average_precision_comes_first():
    names = ['coco/cat_precision', 'coco/bbox_mAP_50', 'loss', 'coco/bbox_mAP', 'coco/segm_mAP', 'coco/bbox_mAP']
    assert order_metrics(names) == ['coco/bbox_mAP', 'coco/segm_mAP', 'coco/bbox_mAP_50', 'coco/cat_precision', 'loss']


def test_focus_keys_are_split_into_prefix_level_measure_and_size():
    metrics = {
        'coco/bbox_mAP': 0.5,
        'focus/images': 4.0,
        'focus/images_without_boxes': 1.0,
        'focus/bbox_head.cls_convs.0_1/gain_small': 2.0,
        'focus/bbox_head.cls_convs.0_1/gain': 1.5,
        'focus/bbox_head.cls_convs.0_1/gain_large': -1.0,
        'focus/bbox_head.cls_convs.0_1/hit': None,
        'focus/bbox_head.cls_convs.0_1/gain/traffic light': 9.0,
        'by predictions/neck_0/energy': 0.25,
    }
    history = MetricHistory(dict(metrics=dict(epoch_1=metrics, epoch_2={'coco/bbox_mAP': -1.0})))
    assert history.evaluations == {'epoch 1': {'coco/bbox_mAP': 0.5}, 'epoch 2': {'coco/bbox_mAP': None}}
    assert history.focus_evaluation == 'epoch 1'
    assert history.focus == {
        'focus': (4, {'bbox_head.cls_convs.0_1': {'gain': {'small': 2.0, 'all': 1.5}}}),
        'by predictions': (0, {'neck_0': {'energy': {'all': 0.25}}}),
    }
