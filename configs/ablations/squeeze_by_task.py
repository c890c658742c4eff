"""In dense tasks, not in classification? avg+max squeeze in a classifier, a detector, a segmenter.

The classifier needs mmpretrain. All three see the same shapes; in the classifier's crowded scenes
the label is that of the largest.
"""

# Names with two underscores are not keys of the config.
__narrow = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 32,
    'model.backbone.zero_init_residual': False,
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
    'train_cfg.max_iters': 240,
    'train_cfg.val_interval': 80,
    'default_hooks.checkpoint.interval': 80,
}
tasks = dict(
    classification=dict(
        base='configs/classification/resnet_se_r18_crowded.py',
        metric='accuracy/top1',
        smallest_effect=1.0,  # %
        overrides={**__narrow, 'model.head.in_channels': 256},
    ),
    detection=dict(
        base='configs/faster_rcnn_se_r50.py',
        metric='coco/bbox_mAP',
        smallest_effect=0.01,  # mAP, 0 to 1
        overrides={
            **__narrow,
            'model.neck.in_channels': [32, 64, 128, 256],
            'model.neck.out_channels': 64,
            'model.rpn_head.in_channels': 64,
            'model.rpn_head.feat_channels': 64,
            'model.roi_head.bbox_roi_extractor.out_channels': 64,
            'model.roi_head.bbox_head.in_channels': 64,
            'model.roi_head.bbox_head.fc_out_channels': 128,
        },
    ),
    segmentation=dict(
        base='configs/fcn_se_r50.py',
        metric='mIoU',
        smallest_effect=1.0,  # %
        overrides={
            **__narrow,
            'model.decode_head.in_channels': 256,
            'model.auxiliary_head.in_channels': 128,
        },
    ),
)
arms = {
    'plain': {'model.backbone.attention': None},
    'avg': {'model.backbone.attention.squeeze': 'avg'},
    'avg+max': {
        'model.backbone.attention.squeeze': 'avg+max',
        'model.backbone.attention.fusion': 'softmax',
    },
}
contrasts = {'avg+max squeeze': dict(of='avg+max', against='avg')}
across = {
    'dense tasks beyond classification': dict(
        contrast='avg+max squeeze', of=['detection', 'segmentation'], against=['classification']
    )
}
seeds = 8
