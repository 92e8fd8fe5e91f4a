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
    values = [values['scores']['0'] for values in read_data(run)['images'][0]['values']]
    assert values == [[4100], [4200], [5000]]  # of each epoch
    assert len(list((tmp_path / 'run/report/photos').iterdir())) == 4


def test_images_are_in_the_order_of_the_data_set(tmp_path):
    """Epoch 1 has the images at positions 1 and 3, epoch 2 those at 2, 0 and 3; the test set is another."""
    placed = [('epoch_1', 1), ('epoch_1', 3), ('epoch_2', 2), ('epoch_2', 0), ('epoch_2', 3)]
    snapshots = [
        make_snapshot(f'{folder}/val_{position}', tmp_path / f'v{position}.png', folder=folder, position=position)
        for folder, position in placed
    ]
    snapshots += [make_snapshot(f'test_{n}', tmp_path / f't{n}.png', position=n) for n in (1, 0)]
    run = write_run(tmp_path / 'run', snapshots)
    write_report(run)
    assert [image['key'] for image in read_data(run)['images']] == [
        *(f'val_{position}' for position in range(4)),
        *(f'test_{n}' for n in range(2)),
    ]
    write_report(run, max_images=1)
    assert [image['key'] for image in read_data(run)['images']] == ['val_0']
