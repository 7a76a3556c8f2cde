"""The command line: `flowopt`, or `python -m studies`.

A study is a package under `studies/` and one line in `STUDIES`. The package has a docstring, whose
first line is its summary, and the modules

- `config`: `PRESETS` (name → frozen dataclass), `DEFAULT_PRESET`, `EXAMPLES`, and
  `add_arguments(parser)` with `with_arguments(config, arguments)` for options of its own; and,
  where these choose between several studies, `package(arguments)`, which names the one;
- `run`: `run(config, out=…, jobs=…)`, which returns a `ResultFolder` with `report.md`;
- `figures`: `draw(folder)`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import flowopt
from flowopt.errors import ConfigurationError, FlowoptError
from studies.command.listing import listing, summary
from studies.command.showing import showing
from studies.common.names import unknown_name
from studies.common.settings import apply_settings

STUDIES: Mapping[str, str] = {
    "compare": "studies.compare",
    "basins": "studies.basins",
    "controls": "studies.controls",
}
USER_ERROR, INTERRUPTED = 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose errors are flowopt's."""

    def __init__(self, *arguments, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, allow_abbrev=False, **options)

    def error(self, message: str):
        """Raise `ConfigurationError` with the message and where help is."""
        raise ConfigurationError(f"{message}; see '{self.prog} --help'")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its words; those of the process where not given.

    Returns:
        0; 2 after an error of flowopt; 130 after an interruption from the keyboard.
    """
    argv = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        _check_command(argv)
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads the output, as `head` does, wants no more; Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit as ending:
        # argparse ends the process itself after --help.
        return int(ending.code or 0)
    except FlowoptError as error:
        print(f"flowopt: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(
            "\nflowopt: interrupted; what is finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    return 0


def _check_command(argv: Sequence[str]) -> None:
    """Before argparse does, whose message suggests nothing."""
    if not argv[0].startswith("-") and argv[0] not in ("list", "show", *STUDIES):
        raise ConfigurationError(unknown_name("command", argv[0], ("list", "show", *STUDIES)))


def _parser() -> Parser:
    parser = Parser(
        prog="flowopt",
        description="Optimizers as equations and ways to step them: look them up, and run the "
        "studies that compare them.",
        epilog="examples:\n  flowopt list\n  flowopt show adam\n  flowopt compare\n"
        "  flowopt compare --help",
    )
    parser.add_argument("--version", action="version", version=f"flowopt {flowopt.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_list(commands)
    _add_show(commands)
    for name, package in STUDIES.items():
        _add_study(commands, name, package)
    return parser


def _add_list(commands) -> None:
    text = "list flows, schemes, controls, methods, problems and studies"
    parser = commands.add_parser("list", help=text, description=f"{text.capitalize()}.")
    parser.set_defaults(run=lambda _: print(listing(STUDIES)))


def _add_show(commands) -> None:
    text = "show the equation of an optimizer, its step and what is known about both"
    parser = commands.add_parser(
        "show",
        help=text,
        description=f"{text.capitalize()}.",
        epilog="examples:\n  flowopt show adam\n  flowopt show heavy_ball:BAOAB\n"
        "  flowopt show langevin --latex\n  flowopt show my_flow.txt --source\n"
        "  flowopt show adam --kernel",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="a method (adam), a flow (langevin), a flow with a splitting word or scheme "
        "(heavy_ball:BAOAB) or a text file (my_flow.txt)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--latex", action="store_true", help="print only the equations, as LaTeX")
    form.add_argument(
        "--source", action="store_true", help="print only the torch code of each letter's map"
    )
    form.add_argument(
        "--kernel",
        action="store_true",
        help="print only the operations of a step as native code does them, on rosenbrock",
    )
    form.add_argument("--llvm", action="store_true", help="print only that code, as LLVM IR")
    form.add_argument(
        "--ptx", action="store_true", help="print only that code for a GPU, as PTX; needs no GPU"
    )
    parser.set_defaults(
        run=lambda given: print(
            showing(
                given.name,
                latex=given.latex,
                source=given.source,
                kernel=given.kernel,
                llvm=given.llvm,
                ptx=given.ptx,
            )
        )
    )


def _add_study(commands, name: str, package: str) -> None:
    config = importlib.import_module(f"{package}.config")
    text = summary(importlib.import_module(package))
    default = config.PRESETS[config.DEFAULT_PRESET]
    fields = "\n".join(
        f"  {field.name}={_written(getattr(default, field.name))}"
        for field in dataclasses.fields(default)
    )
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text}.",
        epilog=f"settings of --set, with the values of '{config.DEFAULT_PRESET}' (none: what suits "
        f"the others):\n{fields}\n\n"
        f"examples:\n{config.EXAMPLES}",
    )
    config.add_arguments(parser)
    _add_common_options(parser, config)
    parser.set_defaults(run=lambda arguments: _run_study(package, arguments))


def _add_common_options(parser: Parser, config: ModuleType) -> None:
    parser.add_argument(
        "--preset",
        default=config.DEFAULT_PRESET,
        metavar="NAME",
        help=f"size of the run: {', '.join(config.PRESETS)} (default: {config.DEFAULT_PRESET})",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="where to compute: cpu, cuda or cuda:1 (default: cpu)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change single settings of the preset; they are listed below",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="folder of all results (default: results)",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)"
    )


def _written(value: object) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(str(entry) for entry in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _run_study(package: str, arguments: argparse.Namespace) -> None:
    begin = time.perf_counter()
    settings = importlib.import_module(f"{package}.config")
    if hasattr(settings, "package"):
        package = settings.package(arguments)
        settings = importlib.import_module(f"{package}.config")
    if arguments.preset not in settings.PRESETS:
        raise ConfigurationError(unknown_name("preset", arguments.preset, settings.PRESETS))
    if arguments.jobs < 1:
        raise ConfigurationError(f"--jobs came as {arguments.jobs}, expected at least 1")
    config = apply_settings(settings.PRESETS[arguments.preset], arguments.set)
    if arguments.device is not None:
        config = dataclasses.replace(config, device=arguments.device)
    config = settings.with_arguments(config, arguments)
    run, figures = _needing_extras(f"{package}.run", f"{package}.figures")
    folder = run.run(config, out=arguments.out, jobs=arguments.jobs)
    pictures = figures.draw(folder)
    print((folder.path / "report.md").read_text(encoding="utf-8"))
    print(f"{time.perf_counter() - begin:.0f} s; figures and files in {folder.path}:")
    files = [*(path.name for path in pictures), "report.md", "arrays.nc", "manifest.json"]
    print("  " + ", ".join(files))


def _needing_extras(*names: str) -> list[ModuleType]:
    try:
        return [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the studies need {error.name}, which is not installed: pip install flowopt[studies]"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
