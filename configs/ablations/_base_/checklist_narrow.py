"""The checklist for narrow networks, where the smallest number of hidden channels counts."""

_base_ = 'checklist.py'

factors = dict(
    min_hidden={
        '4': {'model.backbone.attention.min_hidden': 4},
        '1': {'model.backbone.attention.min_hidden': 1},
    },
)
baseline = dict(min_hidden='4')
contrasts = {'min_hidden 1 for 4': dict(of=dict(min_hidden='1'))}
