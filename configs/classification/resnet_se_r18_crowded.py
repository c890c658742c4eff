"""An image classifier with an SE-ResNet on crowded scenes: the label is the largest object's."""

_base_ = 'resnet_se_r18.py'

data_root = 'data/shapes_cls_crowded_64'
dataset = dict(data_root=data_root, shapes=dict(crowded=True))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
