"""Configs are tried in processes of their own."""

from mmdet_featviz.benchmarks.zoo_coverage import run_child


def test_a_config_that_fails_or_times_out_has_its_reason(tmp_path):
    config, image = tmp_path / 'nothing.py', tmp_path / 'image.png'
    row = run_child(config, image, timeout=100)
    assert row['error'].startswith('FileNotFoundError: ')
    assert str(tmp_path) not in row['error']
    assert run_child(config, image, timeout=0) == dict(error='took more than 0 s')
