"""Does residual gating steady a training, on segmentation?"""

_base_ = ['_base_/steadiness.py', '_base_/seg.py']

# Eight seeds cannot show more outcomes: Holm's correction counts them all.
secondary = {
    '_delete_': True,
    'diverged': dict(of='diverged', smallest_effect=0.05),
    'loss spikes': dict(of='spikes', smallest_effect=1),
}
