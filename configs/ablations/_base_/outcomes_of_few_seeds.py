"""What studies of 8 or 9 seeds compare besides the metric.

They cannot show more outcomes: Holm's correction counts them all.
"""

secondary = {'saturated gates': dict(of='saturated', smallest_effect=0.02)}
