"""Does residual gating steady a training, on detection?"""

_base_ = ['_base_/steadiness.py', '_base_/det.py']

secondary = {'loss spikes': dict(of='spikes', smallest_effect=1)}
