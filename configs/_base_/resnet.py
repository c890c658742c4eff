"""What a ResNet hands to a neck and heads."""

# mmdet's and mmseg's inferencers read a checkpoint before they build the model.
custom_imports = dict(imports=['mmse'], allow_failed_imports=False)
# Channels of the four stages by depth.
widths = {
    18: [64, 128, 256, 512],
    34: [64, 128, 256, 512],
    50: [256, 512, 1024, 2048],
    101: [256, 512, 1024, 2048],
    152: [256, 512, 1024, 2048],
}
