"""Draw heatmaps of backbone and neck: inherit this beside a config of your own.

    _base_ = ['./my_detector.py', 'mmdet_featviz::_base_/featviz.py']

mmengine lets no two bases set the same variable. Where yours has `custom_hooks` already, write these lines into your
config instead (`default_hooks` is merged key by key, so nothing of yours is lost):

    custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
    default_hooks = dict(featviz=dict(type='FeatVizHook'))
"""

custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
# Every argument with its default; mmdet_featviz.FeatureVisualizer says what each means.
custom_hooks = [
    dict(
        type='FeatVizHook',
        layers=None,  # backbone and neck, where the detector has them
        layer_type=None,  # or the modules of a class inside these, such as Conv2d
        reduction=None,  # max (mean in an overview), or mean, sum, l2, select_max
        normalize='image',  # or max, layer, run, or a pair of numbers
        colormap='jet',  # any of OpenCV or matplotlib
        alpha=0.4,
        blend='alpha',  # or add
        align='center',  # or corner
        save=('overlay',),  # and heatmap, panel, channels, overview, attention, maps, raw
        out_dir=None,  # {work_dir}/{timestamp}/featviz
        image_root=None,  # the data set's image folder
        image_format='jpg',  # or png, webp
        boxes=None,  # or pred, gt, both
        score_thr=0.3,
        colorbar=False,
        channels='top 16',  # or first 16, all, or a list of numbers
        channel_tiles='overlay',  # or heatmap
        channel_files=False,  # a file for each channel instead of sheets
        attention_channels=8,
        maps_dtype='float32',  # or float16
        interval=1,
        max_images=None,
        image_names=None,  # the images of these names instead
        stages=('test',),  # and train, val
        backend_args=None,
        average_passes=False,  # of test-time augmentation
        overwrite=False,
        resume=False,
        workers=2,  # threads that draw while the detector goes on
        log_to_visualizer=False,  # pictures also go to TensorBoard, WandB, MLflow, ... that the config names
        report=False,  # a page to look through the run in a browser; saves maps
        strict=False,
    )
]
