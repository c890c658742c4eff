"""FCN R18 of half the width on CamVid, 240 iterations."""

_base_ = ['seg.py', 'outcomes_of_few_seeds.py']

base = 'configs/camvid/fcn_se_r50_camvid.py'
