import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not in this environment')

from msfc.zoo import DEFAULT_MODEL
from msfc_demo.link_shape import LinkShape
from msfc_demo.options import parse_options


def test_defaults():
    options = parse_options([])
    assert (options.frames, options.live, options.json, options.model) == (
        60, False, None, DEFAULT_MODEL
    )


def test_defaults_with_a_link():
    options = parse_options(['--link', '200kbit,loss=5%'])
    assert options.link == LinkShape(200e3, 0.05)
    assert (options.model, options.codec_rate) == (DEFAULT_MODEL, -2)
    assert options.rate > 0
    assert not options.paced


def test_views():
    options = parse_options(['--view', '--record', 'run.rrd', '--live', '--depth'])
    assert (options.view, options.depth, str(options.record)) == (True, True, 'run.rrd')


@pytest.mark.parametrize('viewer', ['--view', '--record run.rrd'])
def test_no_viewer_where_the_nodes_are_apart(viewer, capsys):
    with pytest.raises(SystemExit):
        parse_options(f'{viewer} --link 2Mbit'.split())
    assert 'not with --link' in capsys.readouterr().err


def test_what_is_given_stays_with_a_link():
    arguments = '--link 2Mbit --paced --model mine --codec-rate 4 --rate 2 --frames 7'
    options = parse_options(arguments.split())
    assert (options.model, options.codec_rate, options.rate, options.frames) == ('mine', 4, 2, 7)
    assert options.paced


@pytest.mark.parametrize(
    'arguments',
    [
        '--frames 0', '--frames x', '--rate -1', '--rate nan', '--codec-rate x', '--seed -1',
        '--compare -1', '--link 5', '--link 200kbit,loss=100%', '--paced', '--rate 0 --link 2Mbit',
        '--depth --view', '--depth --live',
    ],
)
def test_what_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        parse_options(arguments.split())
    assert error.value.code == 2
    assert f'argument {arguments.split()[0]}' in capsys.readouterr().err
