"""Sessions: `tests`, `lint` and `types` by default; `docs`, `bench`, `peers` on request."""

import nox

nox.options.sessions = ["tests", "lint", "types"]

# One environment from one list of pins, on every machine.
PINS = ("-c", "constraints.txt")
# Two test processes with two threads each would fight for two cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite; arguments after `--` go to pytest."""
    session.install(*PINS, "-e", ".[studies,dev]")
    session.run("pytest", "-n", "2", *session.posargs, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Check rules and format."""
    session.install(*PINS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    session.install(*PINS, "-e", ".[studies,dev]")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; a warning is an error."""
    session.install(*PINS, "-e", ".[studies,docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure prices against hand-written loops; arguments after `--` go to the benchmarks."""
    session.install(*PINS, "-e", ".[studies,dev]")
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Measure kernels against other libraries; arguments after `--` go to the benchmark."""
    session.install(*PINS, "-e", ".", "-r", "tests/benchmarks/peers.txt")
    session.run("python", "-m", "tests.benchmarks.peers", *session.posargs)
