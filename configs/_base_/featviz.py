"""Draws heatmaps of backbone and neck. Inherit this file together with your own config:

    _base_ = ['./my_detector.py', 'mmdet_featviz::_base_/featviz.py']

mmengine does not allow two bases to set the same variable. If your config already sets `custom_hooks` or
`custom_imports`, add these lines to it instead (`default_hooks` is merged key by key, so your own hooks stay; name your
own modules among the imports again):

    custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
    default_hooks = dict(featviz=dict(type='FeatVizHook'))
"""

custom_imports = dict(imports=['mmdet_featviz'], allow_failed_imports=False)
# All arguments with their defaults; mmdet_featviz.FeatureVisualizer and mmdet_featviz.Style document them.
custom_hooks = [
    dict(
        type='FeatVizHook',
        layers=None,  # backbone and neck; also pixel decoder or encoder of transformers
        layer_type=None,  # or only modules of this class inside the layers, such as Conv2d
        reduction=None,  # max (mean if an overview is drawn), or mean, sum, l2, select_max, pca
        normalize='image',  # or percentile, max, layer, run, or two numbers
        percentiles=(1, 99),  # ends of the range of normalize='percentile'
        border=0,  # cells at the sides that do not count for the range
        colormap='jet',  # any OpenCV or matplotlib color map
        alpha=0.4,
        blend='alpha',  # or fade, add
        interpolation='bilinear',  # or nearest, cubic
        foreground=None,  # with reduction='pca': component or boxes
        align='auto',  # or center, corner
        tile_size=None,  # pixels of the pictures on sheets: 320, or 240 for channels
        # also heatmap, panel, channels, overview, attention, scores, receptive_field, maps, raw, box_features,
        # embeddings
        save=('overlay',),
        out_dir=None,  # {work_dir}/{timestamp}/featviz
        image_root=None,  # the image folder of the data set
        image_format='jpg',  # or png, webp
        boxes=None,  # or pred, gt, both
        score_thr=0.3,
        classes=None,  # or names of those whose boxes and score maps are drawn
        labels='full',  # at boxes; or class, none
        line_width=None,  # of boxes, in pixels
        font_size=None,
        colorbar=False,
        channels='top 16',  # or first 16, all, or a list of channel numbers
        channel_tiles='overlay',  # or heatmap
        channel_files=False,  # one file per channel instead of sheets
        attention_channels=8,
        maps_dtype='float32',  # or float16
        interval=1,
        max_images=None,
        image_names=None,  # draw only images with these names
        stages=('test',),  # also train, val
        backend_args=None,
        average_passes=False,  # also draw the mean of the passes of test-time augmentation
        overwrite=False,
        resume=False,
        workers='auto',  # or a number of threads that draw while the detector continues; 0 draws at once
        log_to_visualizer=False,  # also send pictures to the configured TensorBoard, WandB, MLflow, ...
        explain=None,  # dict(method='odam', targets='top 3') also explains single detections
        report=False,  # write a page to browse the run; saves maps
        strict=False,
    )
]
