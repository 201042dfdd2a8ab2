"""The `torchserve` command: starts the server in the background or becomes it, stops it, tells the version.

Messages go to stdout, one line each. Imports wait until they are needed, so that `--help` and `--version` are quick.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from modelserver.settings.command_line import CommandLine, parse

if TYPE_CHECKING:
    from modelserver.settings.properties import Given

STOP_LIMIT: Final = 60.0  # seconds that `--stop --foreground` waits


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; `argv` are the flags, by default those of this process."""
    flags = list(sys.argv[1:] if argv is None else argv)
    if flags[:1] == ["run-handler"]:
        from modelserver.tryout.run import main as run_handler

        run_handler(flags[1:])
    arguments = parse(flags)
    sys.exit(_run(arguments, flags))


def _run(arguments: CommandLine, flags: list[str]) -> int:
    """The exit status."""
    if arguments.show_config and not (arguments.version or arguments.stop):
        return _show_config(arguments)
    if arguments.check and not (arguments.version or arguments.stop):
        return _check(arguments)
    if arguments.stop and not arguments.version:
        return _stop(wait=arguments.foreground)
    from modelserver import pidfile

    with pidfile.alone(pidfile.location()):
        return _tell_version() if arguments.version else _start_alone(arguments, flags)


def _tell_version() -> int:
    from modelserver.settings.version import version

    _find_server()
    print(f"TorchServe Version is {version()}")
    return 0


def _start_alone(arguments: CommandLine, flags: list[str]) -> int:
    """Start the server unless one runs."""
    if _find_server() is not None:
        print("TorchServe is already running, please use torchserve --stop to stop TorchServe.")
        return 1
    if refusal := _check_start(arguments):
        print(refusal)
        return 1
    return _start(flags, foreground=arguments.foreground)


def _show_config(arguments: CommandLine) -> int:
    """Print what a server with these flags would run with. No pid file is looked at: the output is this alone."""
    from modelserver.errors import ConfigurationError
    from modelserver.settings.loading import load
    from modelserver.settings.report import as_json, as_text

    try:
        settings = load(arguments, os.environ, Path.cwd())
    except ConfigurationError as error:
        print(f"Invalid configuration: {error}")
        return 1
    _say(as_json(settings) if arguments.show_config == "json" else as_text(settings))
    return 0


def _say(text: str) -> None:
    """Print to a reader who may have seen enough; the interpreter would complain of that when it ends."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check(arguments: CommandLine) -> int:
    """Print what is to be said about a start with these flags. No pid file is looked at either; 130 if interrupted."""
    from modelserver.checkup.checkup import check_up
    from modelserver.checkup.finding import as_json, exit_status, summary

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was unpacked is removed then, too
    findings = []
    try:
        for finding in check_up(arguments, os.environ, Path.cwd()):
            findings.append(finding)
            if arguments.check == "text":
                _say(str(finding))
    except KeyboardInterrupt:
        return 130
    _say(as_json(findings) if arguments.check == "json" else summary(findings))
    return exit_status(findings)


def _find_server() -> int | None:
    """Process id of the running server; removes a pid file whose server is gone."""
    from modelserver import pidfile

    path = pidfile.location()
    try:
        return pidfile.running_server(path)
    except pidfile.OrphanPidFile:
        print("Removing orphan pid file.")
        path.unlink(missing_ok=True)
        return None


def _check_start(arguments: CommandLine) -> str | None:
    """The message of the first check that fails; None if the server may start."""
    from modelserver.errors import ConfigurationError
    from modelserver.settings.loading import absolute, choose_file, effective

    cwd = Path.cwd()
    log_config = absolute(arguments.log_config, cwd)
    if log_config is not None and not Path(log_config).is_file():
        return f"--log-config file not found: {log_config}"
    temp = os.environ.get("TEMP")
    if temp and not Path(temp).is_dir():
        return f"Invalid temp directory: {temp}, please check TEMP environment variable."
    try:
        file = choose_file(arguments, os.environ, cwd)
    except ConfigurationError as error:
        return str(error)
    try:
        given = effective(arguments, os.environ, cwd, file)
    except ConfigurationError as error:
        return f"Invalid configuration: {error}"
    return _check_given(arguments, given, cwd)


def _check_given(arguments: CommandLine, given: dict[str, Given], cwd: Path) -> str | None:
    """The checks of what file, flags and environment say together."""
    from modelserver.settings.loading import absolute

    def text(key: str) -> str:
        return given[key].text.strip() if key in given else ""

    if vmargs := text("vmargs"):
        print(f"Warning: TorchServe is using non-default JVM parameters: {vmargs}")
    model_store = text("model_store")
    if not model_store:
        return "Missing mandatory parameter --model-store"
    if not (cwd / model_store).is_dir():
        return f"--model-store directory not found: {model_store}"
    workflow_store = arguments.workflow_store
    if workflow_store is not None and not (cwd / workflow_store).is_dir():
        return f"--workflow-store directory not found: {workflow_store}"
    cpp_log_config = absolute(arguments.cpp_log_config, cwd)
    if cpp_log_config is not None and not Path(cpp_log_config).is_file():
        return f"--cpp-log-config file not found: {cpp_log_config}"
    return None


def _start(flags: list[str], *, foreground: bool) -> int:
    """Start the server process; in the foreground become it, so that signals and exit status are the server's own."""
    from modelserver import pidfile

    command = [sys.executable, "-P", "-m", "modelserver.server", pidfile.MARKER, *flags]
    path = pidfile.location()
    sys.stdout.flush()
    try:
        if foreground:
            pidfile.write(path, os.getpid())
            os.execv(sys.executable, command)
        _spawn(command, path)
    except OSError as error:
        print(f"Cannot start the server: {error}")
        return 1
    return 0


def _spawn(command: list[str], path: Path) -> None:
    """Start a process that outlives this one, and name it in the pid file. Raises OSError, and then nothing runs."""
    import subprocess

    from modelserver import pidfile

    server = subprocess.Popen(command)
    try:
        pidfile.write(path, server.pid)
    except OSError:
        server.kill()
        server.wait()
        raise
    server.returncode = 0  # left behind by design: nothing is to warn of a child that still runs


def _stop(*, wait: bool) -> int:
    from modelserver import pidfile

    with pidfile.alone(pidfile.location()):
        pid = _find_server()
        if pid is None:
            print("TorchServe is not currently running.")
            return 0
        try:
            os.kill(pid, signal.SIGTERM)
            message = "" if wait else "TorchServe has stopped."
        except ProcessLookupError:
            message = "TorchServe already stopped."
        except PermissionError:
            print(f"Not permitted to stop the server with process id {pid}.")
            return 1
        for path in (pidfile.location(), Path("key_file.json")):
            path.unlink(missing_ok=True)
    if wait and not pidfile.wait_for_end(pid, STOP_LIMIT):
        message = "Stopping TorchServe took too long."
    if message:
        print(message)
    return 0
