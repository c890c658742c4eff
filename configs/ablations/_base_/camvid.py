"""FCN R18 of half the width on CamVid, 240 iterations."""

_base_ = 'seg.py'

base = 'configs/camvid/fcn_se_r50_camvid.py'

# Eight seeds cannot show more outcomes: Holm's correction counts them all.
secondary = {'_delete_': True, 'saturated gates': dict(of='saturated', smallest_effect=0.02)}
