import sys

import pytest

from msfc.missing import missing_in_words, missing_modules_told


@pytest.mark.parametrize(
    ('module', 'words'),
    [
        ('safetensors', f'{sys.executable} -m pip install safetensors'),
        ('torch', '-m pip install torch'),
        ('cv2', '-m pip install opencv-python-headless'),
        ('PIL.Image', 'module PIL.Image is not installed'),
        ('PIL.Image', '-m pip install pillow'),
        ('rosbags', '-m pip install rosbags'),
        ('rosbags.image', '-m pip install rosbags-image'),
        ('rclpy', 'rclpy of ROS 2 is not here: source'),
        ('sensor_msgs.msg', 'sensor_msgs of ROS 2 is not here: source'),
        ('msfc_msgs', 'msfc_msgs is not in the sourced workspace'),
        ('msfc_nothing.nodes', 'msfc_nothing is not in the sourced workspace'),
    ],
)
def test_what_to_do_is_told(module: str, words: str) -> None:
    sentence = missing_in_words(ModuleNotFoundError('No module', name=module))
    assert words in sentence
    assert '\n' not in sentence


@pytest.mark.parametrize('module', ['msfc.no_such_file', '', None])
def test_a_fault_of_ours_is_no_matter_of_installing(module: str | None) -> None:
    error = ModuleNotFoundError('No module', name=module)
    assert missing_in_words(error) == ''
    with pytest.raises(ModuleNotFoundError), missing_modules_told():
        raise error


def test_a_program_ends_with_the_sentence() -> None:
    with (
        pytest.raises(SystemExit, match='error: the Python module typer is'),
        missing_modules_told(),
    ):
        raise ModuleNotFoundError('No module', name='typer')
