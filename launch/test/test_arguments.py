import pytest

pytest.importorskip('launch_ros', reason="ROS 2's launch is not installed: it is not on PyPI")

from launch import LaunchContext

from msfc_launch.arguments import (
    COMMON,
    EDGE,
    choice,
    declare,
    flag,
    items,
    log_level,
    mistaken,
    number,
    text,
)
from msfc_launch.errors import LaunchError


def context(argv=(), **arguments):
    made = LaunchContext(argv=argv)
    made.launch_configurations.update(arguments)
    return made


@pytest.mark.parametrize(
    ('value', 'meaning'),
    [
        ('true', True), ('True', True), ('TRUE', True), ('1', True), (' true ', True),
        ('false', False), ('False', False), ('0', False), ('', None),
    ],
)  # fmt: skip
def test_switches_are_spelt_as_nav2_spells_them(value, meaning):
    assert flag(context(use_sim_time=value), 'use_sim_time') is meaning


def test_a_switch_that_is_not_given_says_nothing():
    assert flag(context(), 'use_sim_time') is None
    assert flag(context(), 'use_respawn') is False


def test_a_switch_of_another_value_is_told():
    with pytest.raises(LaunchError, match='autostart:=yes is neither true nor false'):
        flag(context(autostart='yes'), 'autostart')


@pytest.mark.parametrize(
    ('value', 'level'),
    [
        ('', ''), ('info', 'info'), ('INFO', 'info'), ('Debug', 'debug'),
        ('msfc_edge:=debug', 'msfc_edge:=debug'), ('robot1.edge:=WARN', 'robot1.edge:=warn'),
    ],
)  # fmt: skip
def test_log_levels(value, level):
    assert log_level(context(log_level=value)) == level


@pytest.mark.parametrize('value', ['loud', 'msfc_edge:=loud', 'msfc_edge:=', '20'])
def test_a_log_level_that_there_is_not_is_told(value):
    with pytest.raises(LaunchError, match=f'log_level:={value} is not known'):
        log_level(context(log_level=value))


def test_choices():
    assert choice(context(), 'camera', ('none', 'clip')) == 'none'
    with pytest.raises(LaunchError, match='camera:=film is not known: choose none or clip'):
        choice(context(camera='film'), 'camera', ('none', 'clip'))


@pytest.mark.parametrize(
    ('value', 'kind', 'meaning'),
    [
        ('1300', int, 1300), ('-1', int, -1), ('', int, None), ('48000', float, 48e3),
        ('1e6', float, 1e6),
    ],
)  # fmt: skip
def test_numbers(value, kind, meaning):
    found = number(context(budget=value), 'budget', kind)
    assert found == meaning
    assert type(found) is type(meaning)


@pytest.mark.parametrize(
    ('value', 'kind', 'words'), [('1.5', int, 'a whole number'), ('much', float, 'a number')]
)
def test_a_number_that_is_none_is_told(value, kind, words):
    with pytest.raises(LaunchError, match=f'budget:={value} is not {words}'):
        number(context(budget=value), 'budget', kind)


@pytest.mark.parametrize(
    ('value', 'names'), [('', []), ('front', ['front']), ('front, 12,', ['front', '12'])]
)
def test_lists_have_commas_between(value, names):
    assert items(context(cameras=value), 'cameras') == names


def test_every_argument_is_described_and_may_be_left_out():
    declared = declare(COMMON, EDGE)
    assert {argument.name for argument in declared} == {*COMMON, *EDGE}
    assert all(argument.description for argument in declared)
    made = context()
    for argument in declared:
        argument.execute(made)
    assert flag(made, 'use_sim_time') is None
    assert text(made, 'image_topic') == ''


def test_arguments_that_are_probably_mistaken_are_told():
    known, parameters = ['image_topic', 'use_sim_time', 'model'], ['score_threshold', 'qos.depth']
    argv = ['score_threshold:=0.3', 'use_simtime:=true', 'something:=else', 'model:=a']
    made = context(argv, imge_topic='a', map='b', qos='c')
    assert list(mistaken(made, known, parameters)) == [
        'there is no argument imge_topic, so it is ignored: is image_topic meant?',
        'score_threshold is a parameter and no launch argument, so it is ignored: write it into a '
        'file and give that as params_file',
        'there is no argument use_simtime, so it is ignored: is use_sim_time meant?',
    ]
