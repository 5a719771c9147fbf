"""The command line's frame: verbs, exit codes, the one re-start with other malloc settings."""

import os
import sys
from pathlib import Path

import pytest

from lumiere_core.commands import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def verb(monkeypatch):
    """A function that makes `probe` a verb whose main raises or returns the given thing."""

    def define(result):
        class Module:
            @staticmethod
            def add_arguments(parser):
                parser.add_argument("--number", type=int)

            @staticmethod
            def main(options):
                if isinstance(result, BaseException):
                    raise result
                return result

        monkeypatch.setitem(sys.modules, "lumiere_probe", Module)
        monkeypatch.setitem(cli.VERBS, "probe", ("lumiere_probe", "a probe"))
        return cli.main(["probe", "--number", "3"])

    return define


@pytest.mark.parametrize(
    "error", [ValueError("got 3, wanted 4"), FileNotFoundError("no file x"), FloatingPointError("nan")]
)
def test_expected_mistakes_are_one_line_and_exit_1(verb, capsys, error):
    assert verb(error) == 1
    assert capsys.readouterr().err == f"error: {error}\n"


def test_defects_keep_their_traceback(verb):
    with pytest.raises(KeyError):
        verb(KeyError("x"))


def test_other_endings(verb, capsys):
    assert verb(0) == 0 and verb(None) == 0 and verb(3) == 3
    assert verb(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_mistakes_reach_the_shell(spawn):
    process = spawn("sample", "--prompt", "x", "--output", "x.gif")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and output == ""
    assert errors == "error: --output is x.gif; with --prompt it must end in .mp4.\n"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["probe", "--number", "three"]])
def test_unknown_words_exit_2_with_the_usage(verb, capsys, arguments):
    verb(0)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: lumiere_core" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_every_verb_has_a_help(capsys, name):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: lumiere_core {name}" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_the_process_starts_again_once_with_malloc_settings(spawn):
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from lumiere_core.commands import cli\n"
        "print(os.getpid(), os.environ.get('MALLOC_TOP_PAD_'), sys.argv, flush=True)\n"
        "cli.main()"
    )
    environment = {k: v for k, v in os.environ.items() if k not in cli.MALLOC}
    process = spawn("sample", "--help", command=("-I", "-c", code), env=environment)
    first, second, usage, *_ = process.communicate(timeout=100)[0].splitlines()
    assert first == f"{process.pid} None ['-c', 'sample', '--help']"
    assert second == f"{process.pid} {cli.MALLOC['MALLOC_TOP_PAD_']} ['-c', 'sample', '--help']"
    assert usage.startswith("usage: lumiere_core sample")


def test_a_program_that_calls_main_is_not_started_again(verb, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    for name in cli.MALLOC:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("the process was started again"))
    assert verb(0) == 0
