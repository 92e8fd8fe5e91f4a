"""Compact table: as a dict, but with a few bytes per name."""

import numpy as np

from mmdet_featviz.runs.compact_table import CompactTable


def test_it_holds_what_a_dict_holds():
    rng, table, expected = np.random.default_rng(0), CompactTable(), {}
    for number in rng.integers(0, 500, 2000).tolist():
        table.add(str(number))
        expected[str(number)] = expected.get(str(number), 0) + 1
    assert len(table) == len(expected)
    assert {name: table.get(name) for name in expected} == expected
    assert table.setdefault('0', 7) == expected['0']
    assert table.setdefault('new', 7) == 7
    assert table.get('other', -1) == -1
    both = CompactTable()
    both.add('other')
    both.add('0', 3)
    both.update(table)
    assert both.get('0') == expected['0']
    assert len(both) == len(table) + 1
    assert 12 * len(table._hashes) <= 20 * len(table)
