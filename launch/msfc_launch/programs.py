"""What a launch file starts: found and checked as a whole before the first process starts."""

from __future__ import annotations

import atexit
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext
from launch.action import Action
from launch.actions import (
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
    TimerAction,
)
from launch.events.process import ProcessExited
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace
from rclpy.exceptions import InvalidNamespaceException
from rclpy.validate_namespace import validate_namespace

from msfc_launch.arguments import (
    choice,
    flag,
    items,
    log_level,
    mistaken,
    number,
    text,
)
from msfc_launch.errors import LaunchError
from msfc_launch.parameter_files import flatten, read_parameter_file
from msfc_launch.restarts import DELAY, Restarts

PACKAGE = 'msfc'

TRANSPORTS = ('raw', 'compressed')

BUILD = 'build it with  colcon build --packages-up-to msfc  and source install/setup.bash'


@dataclass(frozen=True)
class Program:
    """A node that a launch file starts.

    Args:
        package: its package.
        executable: its executable in there.
        name: of the node.
        files: files in ``share/msfc`` that it is given: its parameters first.
        texts: launch arguments that set the parameter of their name, a text.
        lists: launch arguments that set the parameter of their name, a list of texts.
        whole: launch arguments that set the parameter of their name, a whole number.
        numbers: launch arguments that set the parameter of their name, a number.
        fixed: parameters, each with its value, that are so whatever the files say.
        options: of its command line.
        remappings: of its topics.
        managed: whether it has ``autostart``, enclaves, a log level and restarts; rviz2 has not.
        remedy: what to do where it is not there.
    """

    package: str
    executable: str
    name: str
    files: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()
    options: tuple[str, ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    managed: bool = True
    remedy: str = BUILD

    def obstacle(self) -> str:
        """Return why it cannot be started, in words; empty if it can."""
        try:
            prefix = get_package_prefix(self.package)
        except PackageNotFoundError:
            return f'package {self.package} is not here: {self.remedy}'
        path = os.path.join(prefix, 'lib', self.package, self.executable)
        if not os.access(path, os.X_OK) or os.path.isdir(path):
            return f'package {self.package} has no executable {path}: {self.remedy}'
        for file in self.files:
            if not os.path.isfile(own_file(file)):
                return f'package {PACKAGE} has no file {own_file(file)}: {BUILD}'
        return ''


Choice = Program | Callable[[LaunchContext], Program | None]
"""A program, or a function that chooses one, or none."""


def own_file(name: str) -> str:
    """Return the path of a file in ``share/msfc``."""
    return os.path.join(get_package_share_directory(PACKAGE), *name.split('/'))


def start(known: Sequence[str], *choices: Choice) -> OpaqueFunction:
    """Return an action that starts programs, all or none.

    A parameter is what an argument of the launch file says, else the user's ``params_file``, else
    what an including launch file sets, else our own file.

    Args:
        known: names of the launch file's arguments.
        *choices: what to start.
    """

    def check_and_start(context: LaunchContext) -> list[Action]:
        try:
            found = [item if isinstance(item, Program) else item(context) for item in choices]
            programs = [program for program in found if program]
            _warn_of_mistakes(context, known, programs)
            launch = _Launch(context, programs)
            launch.warn_of_other_names()
            return launch.actions()
        except LaunchError as error:
            return [_fail(str(error))]

    return OpaqueFunction(function=check_and_start)


def _fail(sentence: str) -> TimerAction:
    """Return an action that ends the launch with an error.

    An exception while launch files are read would make launch forget what they have started so
    far, by others too, and that would go on alone. One of an event ends the launch in order.
    """

    def fail(context: LaunchContext) -> None:
        raise LaunchError(sentence)

    return TimerAction(period=0.0, actions=[OpaqueFunction(function=fail)])


def _warn_of_mistakes(
    context: LaunchContext, known: Sequence[str], programs: Sequence[Program]
) -> None:
    """Log which arguments are probably meant to be others."""
    parameters = {
        name
        for program in programs
        if program.managed
        for values in read_parameter_file(Path(own_file(program.files[0]))).values()
        for name in flatten(values)
    }
    for sentence in mistaken(context, known, parameters):
        get_logger(PACKAGE).warning(sentence)


class _Launch:
    """Programs with the arguments of one launch.

    Raises:
        LaunchError: an argument is wrong, or something that is needed is not there.
    """

    def __init__(self, context: LaunchContext, programs: Sequence[Program]) -> None:
        self._programs = programs
        obstacles = [words for program in programs if (words := program.obstacle())]
        if obstacles:
            raise LaunchError('nothing is started, as ' + '; '.join(obstacles))
        self._namespace, self._level = _namespace(context), log_level(context)
        self._enclaves, self._respawn = text(context, 'enclaves'), flag(context, 'use_respawn')
        choice(context, 'image_transport', TRANSPORTS)
        self._params_file, self._sections = '', dict[str, Any]()
        if text(context, 'params_file'):
            path = Path(text(context, 'params_file')).expanduser()
            self._params_file, self._sections = str(path), read_parameter_file(path)
        self._given = {program.name: self._write_given(context, program) for program in programs}
        # What an including launch file has set counts for a restart too, whenever that is.
        self._configurations = dict(context.launch_configurations)
        self._environment = dict(os.environ)

    def warn_of_other_names(self) -> None:
        """Log that a parameter file is for other nodes, which ROS 2 does not tell."""
        nodes = [self._full_name(program) for program in self._programs if program.managed]
        sections = {'/' + name.lstrip('/') for name in self._sections}
        if sections and not any('*' in name for name in sections) and not sections & {*nodes}:
            get_logger(PACKAGE).warning(
                f'{self._params_file} has parameters of {", ".join(sorted(sections))} and none of '
                f'{", ".join(nodes)}, so it is ignored: begin it with /**: for nodes of any name'
            )

    def actions(self) -> list[Action]:
        """Return what starts the programs."""
        return [self._node(program, Restarts(), time.monotonic()) for program in self._programs]

    def _full_name(self, program: Program) -> str:
        return f'{self._namespace.rstrip("/")}/{program.name}'

    def _write_given(self, context: LaunchContext, program: Program) -> str:
        """Write a file of the parameters that launch arguments set; return its path, if any."""
        switches = ('use_sim_time', 'autostart') if program.managed else ('use_sim_time',)
        values: dict[str, Any] = {
            **{name: flag(context, name) for name in switches},
            # Texts whatever they look like: a model may be named 2024.
            **{name: text(context, name) for name in program.texts},
            **{name: items(context, name) for name in program.lists},
            **{name: number(context, name, int) for name in program.whole},
            **{name: number(context, name, float) for name in program.numbers},
            **dict(program.fixed),
        }
        values = {name: value for name, value in values.items() if value not in (None, '', [])}
        if not values:
            return ''
        # By the node's full name, as a user's file may have that, and it goes before /**.
        name = self._full_name(program) if program.managed else '/**'
        with tempfile.NamedTemporaryFile(
            'w', prefix='msfc_', suffix='.yaml', delete=False
        ) as file:
            yaml.safe_dump({name: {'ros__parameters': values}}, file)
        # Restarted nodes read it again.
        atexit.register(Path(file.name).unlink, missing_ok=True)
        return file.name

    def _node(self, program: Program, restarts: Restarts, begun: float, **options: Any) -> Node:
        """Return what starts a program.

        Args:
            program: the program.
            restarts: its earlier runs.
            begun: time of its start, in seconds of the monotonic clock.
            **options: for :class:`Node`.
        """
        ros: list[str] = []
        if program.managed:
            # The weakest of all, so before what an including launch file sets.
            ros = ['--params-file', own_file(program.files[0])]
            ros += ['--log-level', self._level] if self._level else []
            ros += enclave_arguments(self._enclaves, program.package)
            if self._respawn:
                options['on_exit'] = self._again(program, restarts, begun)
        return Node(
            package=program.package,
            executable=program.executable,
            namespace=self._namespace,
            arguments=list(program.options),
            ros_arguments=ros,
            parameters=[file for file in (self._params_file, self._given[program.name]) if file],
            remappings=list(program.remappings),
            output='screen',
            **options,
        )

    def _again(
        self, program: Program, restarts: Restarts, begun: float
    ) -> Callable[[ProcessExited, LaunchContext], Action | None]:
        """Return what starts a program again after its end."""

        def again(event: ProcessExited, context: LaunchContext) -> Action | None:
            if context.is_shutdown:
                return None
            now = time.monotonic()
            delay = restarts.delay(now - begun)
            if delay > DELAY:
                get_logger(PACKAGE).warning(
                    f'{program.name} ended soon after its start, {restarts.early} times in a row: '
                    f'next start in {delay:g} s'
                )
            node = self._node(program, restarts, now + delay, env=self._environment)
            restore = OpaqueFunction(function=self._restore)
            actions = [PushLaunchConfigurations(), restore, node, PopLaunchConfigurations()]
            return TimerAction(period=delay, actions=actions)

        return again

    def _restore(self, context: LaunchContext) -> None:
        context.launch_configurations.clear()
        context.launch_configurations.update(self._configurations)


def _namespace(context: LaunchContext) -> str:
    """Return the nodes' full namespace."""
    base = context.launch_configurations.get('ros_namespace')
    name = str(make_namespace_absolute(prefix_namespace(base, text(context, 'namespace'))) or '/')
    try:
        validate_namespace(name)
    except InvalidNamespaceException as error:
        words = ' '.join(str(error).split())
        raise LaunchError(
            f'namespace:={text(context, "namespace")} is not possible: {words}'
        ) from None
    return name


def enclave_arguments(parent: str, package: str) -> list[str]:
    """Return the ROS arguments that put a package's node into its enclave below ``parent``."""
    return ['--enclave', f'{parent.rstrip("/")}/{package}'] if parent else []
