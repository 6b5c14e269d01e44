"""Networks: from raw features with NaN where a value is missing to one logit per species.

Shape suffixes: N tracks, F features, W token width, S species, E encoded values, K members, P patterns.
"""
