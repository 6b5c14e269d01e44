"""Groups of species and charges of the response calibration."""

import numpy as np

from pidflow.adapt.response.cells import REST, charge_of, group_of


def test_groups_and_charges():
    assert group_of(np.array([11, -13, 211, -321, 2212, 1000010020, 0])).tolist() == [0, 1, 1, 2, 3, REST, REST]
    assert charge_of({"sign": np.array([-1.0, 1.0, np.nan])}).tolist() == [0, 1, 0]
