"""Passes over one image are grouped, in all epochs."""

from report_pages import make_snapshot, read_data, write_report, write_run


def test_epochs_and_passes_are_grouped_by_image(tmp_path):
    snapshots = [make_snapshot(f'epoch_{epoch}/p/a', tmp_path / 'a.png', epoch) for epoch in (1, 2, 10)]
    snapshots.append(make_snapshot('b', tmp_path / 'b.png'))
    snapshots.append(make_snapshot('b', tmp_path / 'b.png', augmentation=1))
    # A data set may have folders of these names: these are two images.
    snapshots += [make_snapshot(f'epoch_{n}/c', tmp_path / f'epoch_{n}' / 'c.png') for n in (1, 2)]
    run = write_run(tmp_path / 'run', snapshots)
    write_report(run)
    shots = [(image['key'], [label for _, label in image['shots']]) for image in read_data(run)['images']]
    assert shots == [
        ('p/a', ['epoch 1', 'epoch 2', 'epoch 10']),
        ('b', ['', 'pass 1']),
        ('c', ['epoch 1']),
        ('c (2)', ['epoch 2']),
    ]
    assert read_data(run)['images'][0]['lowest'] == 0.5  # of the last epoch
    assert len(list((tmp_path / 'run/report/photos').iterdir())) == 4
