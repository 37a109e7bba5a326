import re
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from hounsfield import cli
from hounsfield.errors import BusyError, DivergedError, InputError, InterruptedRun

runner = CliRunner()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hounsfield", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_version_is_printed() -> None:
    from hounsfield import __version__

    assert run("--version").stdout == f"{__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys, hounsfield.cli as cli\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'polars', 'pydicom', 'altair', 'numpy', 'scipy', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", typer.main.get_command(cli.app).list_commands(None))
def test_every_verb_explains_itself(name: str) -> None:
    page = runner.invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"})
    assert page.exit_code == 0
    assert re.search(rf"Usage: .*{name}", page.stdout)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("got x."), 2, "error: got x.\n"),
        (DivergedError("loss is NaN."), 3, "error: loss is NaN.\n"),
        (
            PermissionError(13, "Permission denied", "/a/b"),
            2,
            "error: /a/b may not be opened. Ask for the right, or choose another.\n",
        ),
        (BusyError("held by 12."), 4, "error: held by 12.\n"),
        (InterruptedRun("saved at step 3."), 130, "saved at step 3.\n"),
    ],
)
def test_an_error_is_one_line_and_its_own_exit_code(
    error: Exception,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_how_to_go_on(sign: signal.Signals) -> None:
    program = (
        "import os, signal, time\n"
        "from hounsfield import cli\n"
        "@cli.app.command()\n"
        "def wait():\n"
        f"    os.kill(os.getpid(), {int(sign)})\n"
        "    time.sleep(60)\n"
        "import sys; sys.argv = ['hounsfield', 'wait']\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "interrupted. Nothing is half-written: run the same command again.\n"
