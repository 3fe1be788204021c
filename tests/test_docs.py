"""What the documentation shows runs. Its links are checked by ``scripts/docs.sh``."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
OWN_FILE = r'((experiments|benchmarks|scripts|requirements|docker|launch)/|src/msfc_)'
PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ('*.md', 'docs/**/*.md', 'src/msfc_core/msfc/zoo/*/*.md')
    for page in ROOT.glob(pattern)
    if page.name != 'CHANGELOG.md'
)


@pytest.mark.parametrize('page', ['README.md', 'docs/first-run.md'])
def test_python_of_the_first_pages_runs(page):
    (code,) = re.findall(r'^```python\n(.*?)^```', (ROOT / page).read_text(), re.M | re.S)
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d{3,4} bytes: \['.*'\]\n", done.stdout)


def test_names_of_the_library_are_known_and_others_are_not():
    import msfc

    assert msfc.edge_pipeline.__module__ == 'msfc.pipeline.torch_network'
    with pytest.raises(AttributeError, match="'msfc' has no attribute 'nothing'"):
        _ = msfc.nothing


@pytest.mark.parametrize('page', PAGES)
def test_commands_of_a_page_are_known(page):
    """Commands, options, launch arguments, parameters and files of the repository exist."""
    wrong = []
    for words, whole in commands_of((ROOT / page).read_text()):
        try:
            check_command(words, whole)
        except (AssertionError, KeyError, OSError, RuntimeError, SystemExit) as error:
            wrong.append(f'{shlex.join(words)}: {error!r}')
    assert not wrong, '\n'.join(wrong)


def commands_of(text):
    """Yield the commands of a page: their words, and whether all of them are there.

    They are whole in blocks of code; in a sentence one may be no more than a name and an option.
    """
    blocks = re.findall(r'^ *```bash\n(.*?)^ *```', text, re.M | re.S)
    spans = re.findall(r'(?<!`)`((?:msfc|python|bash|ros2) [^`]+)`(?!`)', text)
    for code, whole in ((blocks, True), (spans, False)):
        for line in '\n'.join(code).replace('\\\n', ' ').splitlines():
            if '...' not in line and '…' not in line:
                for words in split(line):
                    yield words, whole


def split(line):
    """Yield the commands of a line of the shell, each as its words, without its variables."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars='|;&')
    lexer.whitespace_split = True
    words = []
    for word in [*lexer, ';']:
        if set(word) <= set('|;&'):
            if words:
                yield words
            words = []
        elif words or not re.match(r'[A-Z_]+=', word):
            words.append(word)


def check_command(words, whole):
    """Check a command as far as it is one of this project.

    Raises:
        AssertionError, KeyError, OSError, RuntimeError, SystemExit: a part of it is not known.
    """
    program, *rest = words
    for word in words:
        if re.match(OWN_FILE, word):
            assert (ROOT / word).exists(), f'no {word}'
    if 'msfc.cli.main' in rest:
        program, rest = 'msfc', rest[rest.index('msfc.cli.main') + 1 :]
    if program == 'msfc':
        check_msfc(rest, whole)
    elif rest[:1] == ['scripts/demo.sh'] and rest[1:] != ['--help']:
        from msfc_demo.options import parse_options

        parse_options(rest[1:])
    elif program in ('python', 'bash') and re.match('(benchmarks|scripts)/', ' '.join(rest)):
        check_options((ROOT / rest[0]).read_text(), rest)
    elif program == 'ros2':
        check_ros2(rest)


def check_msfc(words, whole):
    """Check the options of the command line, and that no argument of a whole one is missing."""
    import typer

    from msfc.cli.main import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name='msfc')
    while hasattr(command, 'commands'):
        if not words or words[0].isupper():
            return
        name, *words = words
        command = command.get_command(context, name)
        assert command, f'no command {name}'
        context = typer.Context(command, info_name=name, parent=context)
    if command.context_settings.get('allow_extra_args'):  # stands in for what needs ROS 2
        return
    values, more, _ = command.make_parser(context).parse_args(list(words))
    assert not more, f'too many arguments: {more}'
    missing = [p.name for p in command.params if p.required and not values.get(p.name)]
    assert not whole or not missing, f'missing: {missing}'


def check_options(text, words):
    """Check that a program's text has the options that it is given."""
    if 'harness' in text:
        text += (ROOT / 'benchmarks/harness.py').read_text()
    for word in words:
        if word.startswith('--'):
            assert re.search(rf'(?<![\w-]){word}(?![\w-])', text), f'no option {word}'


def check_ros2(words):
    """Check launch arguments, executables and parameters."""
    if words[:2] == ['launch', 'msfc'] and len(words) > 2:
        given = {word.partition(':=')[0] for word in words[3:]}
        unknown = given - launch_arguments(words[2])
        assert not unknown, f'no launch argument {unknown}'
    elif words[0] == 'run' and len(words) > 2:
        package, executable = words[1:3]
        setup = (ROOT / 'src' / package / 'setup.py').read_text()
        assert re.search(rf"'{executable} = ", setup), f'no executable {executable}'
    elif words[0] == 'param' and len(words) > 3:
        node, name = words[2].rpartition('/')[2], words[3]
        file = ROOT / 'launch/config' / f'{node.removeprefix("msfc_")}.yaml'
        (values,) = yaml.safe_load(file.read_text()).values()
        assert name in values['ros__parameters'], f'no parameter {name}'


def launch_arguments(file):
    """Return the names of a launch file's arguments, without ROS 2's launch."""
    groups = {
        node.targets[0].id: {ast.literal_eval(key) for key in node.value.keys}
        for node in ast.parse((ROOT / 'launch/msfc_launch/arguments.py').read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    (names,) = re.findall(r'declare\(([A-Z, ]+)\)', (ROOT / 'launch' / file).read_text())
    return set().union(*(groups[name] for name in names.split(', ')))
