import copyreg
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from conftest import noise, resnet_detector, train_config, write_dataset
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmdet_featviz.utils.checkpoints import allow_training_checkpoints

pytestmark = [
    pytest.mark.skipif(
        not hasattr(torch.serialization, 'safe_globals'), reason='this torch refuses nothing by default'
    ),
    pytest.mark.skipif(
        hasattr(mmengine_checkpoint, 'get_torch_safe_globals'), reason='this mmengine allows its classes itself'
    ),
]
F8, OBJECT = np.dtype('f8'), np.dtype('O')


@pytest.fixture(autouse=True)
def allowed():
    """A loader that uses torch's safe_globals for a while removes what others allowed."""
    allow_training_checkpoints()


class Call:
    """Is pickled as a call with these arguments, and with a state if there is one."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


class New(Call):
    """Is pickled as ``cls.__new__(cls, ...)``, with no call of ``__init__``."""

    def __reduce_ex__(self, protocol):
        cls, arguments, *state = self.call
        return (copyreg.__newobj__, (cls, *arguments), *state)

    @property
    def __class__(self):  # pickle compares it
        return self.call[0]


def start_array(shape=(0,), owner=np.ndarray):
    return np.zeros(1).__reduce__()[0], owner, shape, b'b'


def array_with(state):
    return Call(*start_array(), state=state)


def number_type(code, state):
    return Call(np.dtype, code, False, True, state=state)


def history_with(**state):
    fits = dict(max_length=10, _log_history=np.ones(2), _count_history=np.ones(2))
    return New(HistoryBuffer, state={**fits, **state})


def load(content, edit=None):
    """Save and load with torch; `edit` changes the pickled bytes in between."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    if edit is not None:
        edited = io.BytesIO()
        with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(edited, 'w') as target:
            for name in source.namelist():
                data = source.read(name)
                target.writestr(name, edit(data) if name.endswith('data.pkl') else data)
        buffer = edited
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def other_numpy(data):
    """The pickle as the other of NumPy 1 and 2 writes it."""
    one, other = (b'numpy._core.', b'numpy.core.') if b'numpy._core.' in data else (b'numpy.core.', b'numpy._core.')
    assert one in data
    return data.replace(one, other)


@pytest.mark.parametrize('edit', [None, other_numpy], ids=['this NumPy', 'the other NumPy'])
def test_training_checkpoints_of_mmengine_are_read(edit):
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 1])
    history.update(5, 1)
    stored = dict(history=history, array=np.arange(6.0).reshape(2, 3).T, swapped=np.arange(3, dtype='>i4'))
    stored['numbers'] = [np.float64(0.5), np.float32(0.25), np.float16(2), np.int64(3), np.int32(-4), np.bool_(True)]
    loaded = load(stored, edit)
    assert type(loaded['history']) is HistoryBuffer
    assert loaded['history'].mean() == 3
    assert loaded['history'].statistics('max') == 5
    for values, same in zip(loaded['history'].data, history.data):
        assert type(values) is np.ndarray
        assert values.dtype == same.dtype
        np.testing.assert_array_equal(values, same)
    loaded['history'].update(6.0)
    assert loaded['history'].current() == 6
    for name in ('array', 'swapped'):
        assert isinstance(loaded[name], np.ndarray)
        assert loaded[name].dtype == stored[name].dtype.newbyteorder('=')
        np.testing.assert_array_equal(loaded[name], stored[name])
        saved_again = pickle.dumps(loaded[name])
        assert b'mmdet_featviz' not in saved_again
        np.testing.assert_array_equal(pickle.loads(saved_again), stored[name])
    for number, same in zip(loaded['numbers'], stored['numbers']):
        assert type(number) is type(same)
        assert number == same


def test_what_a_real_training_writes_is_read(tmp_path):
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(2)})
    cfg = train_config(data, tmp_path / 'work', resnet_detector())
    cfg.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(cfg)
    runner.train()
    file = next((tmp_path / 'work').glob('*.pth'))
    loaded = torch.load(file, weights_only=True)
    scalars = loaded['message_hub']['log_scalars']
    assert 'train/loss' in scalars
    for name, history in scalars.items():
        assert type(history) is HistoryBuffer
        written = runner.message_hub.log_scalars[name]
        np.testing.assert_array_equal(history.data[0], written.data[0][: len(history.data[0])])
    assert runner.load_checkpoint(str(file))['meta']['epoch'] == 1


PLAIN = (3, '<', None, None, None, -1, -1, 0)
CRAFTED = {
    'an array of pointers': Call(np.ndarray, (1,), OBJECT, b'x' * 8),
    'an array over chosen bytes': Call(np.ndarray, (2,), F8, b'x' * 16),
    'an array that is not filled': Call(np.ndarray, (1000,)),
    'a new array': New(np.ndarray, (1,), OBJECT, b'x' * 8),
    'a new started array': New(np.ndarray, (1000,)),
    'a started array of another size': Call(*start_array((1000,))),
    'a started array of another class': Call(*start_array(owner=HistoryBuffer)),
    'a filled array of pointers': array_with((1, (1,), OBJECT, False, b'x' * 8)),
    'an array of a list of objects': np.array([b'x', None], object),
    'an array of text': np.array(['text']),
    'an array with fields': np.zeros(2, 'f4,i8'),
    'an array of dates': np.zeros(2, 'M8[s]'),
    'an array with too few bytes': array_with((1, (1000,), F8, False, b'x' * 8)),
    'an array of negative sizes': array_with((1, (-1, -1), F8, False, b'x' * 8)),
    'an array of too many axes': array_with((1, (1,) * 65, F8, False, b'x' * 8)),
    'an array of sizes that are no numbers': array_with((1, (True,), F8, False, b'x' * 8)),
    'an array of text instead of bytes': array_with((1, (1,), F8, False, 'x' * 8)),
    'an array of a list': array_with((1, (1,), F8, False, [1.0])),
    'an array of no type': array_with((1, (1,), 'f8', False, b'x' * 8)),
    'an array in another version': array_with((7, (1,), F8, False, b'x' * 8)),
    'an array in an order that is no flag': array_with((1, (1,), F8, 7, b'x' * 8)),
    'an array of a shorter state': array_with((1, (1,), F8)),
    'a type of objects': OBJECT,
    'a type with fields': Call(np.dtype, [('a', 'f4')]),
    'a type with flags': number_type('f8', (*PLAIN[:-1], 63)),
    'a type of another size': number_type('f8', (3, '<', None, None, None, 1, 1, 0)),
    'a type with a part': number_type('f8', (3, '<', (F8, (2,)), None, None, -1, -1, 0)),
    'a type with names': number_type('f8', (3, '<', None, ('a',), {'a': (F8, 0)}, -1, -1, 0)),
    'a type of another order': number_type('f8', (3, 'x', None, None, None, -1, -1, 0)),
    'a number of too few bytes': Call(np.float64(1).__reduce__()[0], F8, b'x'),
    'a number of an object': Call(np.float64(1).__reduce__()[0], OBJECT, b'x' * 8),
    'a number without a type': Call(np.float64(1).__reduce__()[0], 'f8', b'x' * 8),
    'a history of arguments': Call(HistoryBuffer, [1.0], [1]),
    'a history with an attribute': history_with(other=1),
    'a history with a list': history_with(_log_history=[1.0, 2.0]),
    'a history of two lengths': history_with(_log_history=np.ones(3)),
    'a history of a plane': history_with(_log_history=np.ones((2, 2)), _count_history=np.ones((2, 2))),
    'a history of no length': history_with(max_length=0),
    'a history with a swapped statistic': history_with(statistics_methods=dict(mean=HistoryBuffer.max)),
    'a history with a new statistic': history_with(statistics_methods=dict(other=HistoryBuffer.max)),
    'print': print,
    'a call of print': Call(print, 'printed'),
    'a method of text': Call(getattr, 'text', 'format'),
    'a global of a class': Call(getattr, HistoryBuffer.min, '__globals__'),
}


@pytest.mark.parametrize('name', CRAFTED)
def test_crafted_checkpoints_are_refused(name, capsys):
    with pytest.raises(pickle.UnpicklingError):
        load(CRAFTED[name])
    assert 'printed' not in capsys.readouterr().out
    assert HistoryBuffer([1.0, 3.0], [1, 1]).statistics('mean') == 2


@pytest.mark.parametrize('owner', [HistoryBuffer, np.ndarray, np.dtype, torch.Tensor])
@pytest.mark.parametrize('name', ['__init__', '__setstate__', '_log_history', 'print', 'tofile', 'update', 'min'])
def test_other_attributes_stay_refused(owner, name):
    if owner is HistoryBuffer and name == 'min':
        pytest.skip('this is what a history writes')
    with pytest.raises(pickle.UnpicklingError, match='may not ask for the attribute'):
        load(Call(getattr, owner, name))


def test_other_classes_stay_refused():
    with pytest.raises(pickle.UnpicklingError):
        load(pytest.ExitCode.OK)


def test_nothing_is_allowed_by_itself():
    """NumPy's own classes would be callable with any arguments."""
    entries = torch.serialization.get_safe_globals()
    allowed = {entry[0] if isinstance(entry, tuple) else entry for entry in entries}
    assert allowed
    assert not allowed & {np.ndarray, np.dtype, HistoryBuffer, getattr, print}


@pytest.mark.parametrize('theirs', [np.dtype, (dict, 'numpy.dtype')], ids=['class', 'named'])
def test_what_a_script_allowed_before_stays_alone(theirs):
    """Of two classes with one name, torch takes either: a real dtype for a number that is not NumPy's, for example."""
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([theirs])
    try:
        allow_training_checkpoints()
        assert torch.serialization.get_safe_globals() == [theirs]
    finally:
        torch.serialization.clear_safe_globals()


def test_allowing_again_changes_nothing():
    before = set(torch.serialization.get_safe_globals())
    allow_training_checkpoints()
    assert set(torch.serialization.get_safe_globals()) == before
