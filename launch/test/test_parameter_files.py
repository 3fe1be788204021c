import pytest

from msfc_launch.errors import LaunchError
from msfc_launch.parameter_files import flatten, read_parameter_file


def test_sections_are_found_at_every_depth(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(
        '/**:\n  ros__parameters:\n    a: 1\n'
        'robot1:\n  msfc_edge:\n    ros__parameters:\n      b: {c: 2}\n'
        '/robot2:\n  /msfc_edge:\n    ros__parameters: {}\n'
    )
    assert read_parameter_file(path) == {
        '/**': {'a': 1},
        '/robot1/msfc_edge': {'b': {'c': 2}},
        '/robot2/msfc_edge': {},
    }


def test_an_empty_file_sets_nothing(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('# later\n')
    assert read_parameter_file(path) == {}


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'a: [1\n', 'is not YAML'),
        (b'\xff\xfe\x00', 'is not YAML'),
        (b'a: 1\n', 'has no parameters'),
        (b'- 1\n', 'has no parameters'),
        (b'model: tabletop\n', "needs a node's name or /\\*\\*:"),
    ],
)
def test_what_is_no_parameter_file_is_told(tmp_path, content, words):
    path = tmp_path / 'mine.yaml'
    path.write_bytes(content)
    with pytest.raises(LaunchError, match=words) as caught:
        read_parameter_file(path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_told(tmp_path):
    with pytest.raises(LaunchError, match='cannot be read: No such file'):
        read_parameter_file(tmp_path / 'none.yaml')
    with pytest.raises(LaunchError, match='cannot be read: Is a directory'):
        read_parameter_file(tmp_path)


def test_names_are_dotted():
    assert list(flatten({'a': {'b': 1, 'c': {'d': [2]}}, 'e': 3})) == ['a.b', 'a.c.d', 'e']
