import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc.zoo import DEFAULT_MODEL
from msfc_demo.options import parse_options


def test_defaults():
    options = parse_options([])
    assert (options.frames, options.live, options.json, options.model) == (
        60, False, None, DEFAULT_MODEL
    )


@pytest.mark.parametrize(
    'arguments',
    [
        '--frames 0', '--frames x', '--rate -1', '--rate nan', '--codec-rate x', '--seed -1',
        '--compare -1',
    ],
)
def test_what_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        parse_options(arguments.split())
    assert error.value.code == 2
    assert f'argument {arguments.split()[0]}' in capsys.readouterr().err
