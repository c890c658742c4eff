"""What studies of 16 seeds or more compare besides the metric, on segmentation."""

secondary = {
    'mAcc': dict(of='mAcc', smallest_effect=1.0),
    'saturated gates': dict(of='saturated', smallest_effect=0.02),
    'iterations to 50 mIoU': dict(of='steps to 50', smallest_effect=20),
    'diverged': dict(of='diverged', smallest_effect=0.05),
}
