"""What studies of 16 seeds or more compare besides the metric, on detection."""

secondary = {
    'mAP of small objects': dict(of='coco/bbox_mAP_s', smallest_effect=0.02),
    'mAP of medium objects': dict(of='coco/bbox_mAP_m', smallest_effect=0.02),
    'saturated gates': dict(of='saturated', smallest_effect=0.02),
    'iterations to 0.1 mAP': dict(of='steps to 0.1', smallest_effect=20),
    'diverged': dict(of='diverged', smallest_effect=0.05),
}
