"""The command line: ``isometry run`` records a result, ``isometry compare`` lays them side by side.

Only Click is imported here, so that help is quick; each command imports what it needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from isometry._version import __version__

if TYPE_CHECKING:
    from isometry.common.isolation import Inspection, Outcome, Work
    from isometry.common.results import Result

__all__ = ["main"]

AS_PROMISED, FAILED, USAGE, NOT_RUN, INTERRUPTED = 0, 1, 2, 3, 130
SHARES = 4  # more processes spend their time on importing the framework

EPILOG = """\b
Exit codes:
  0    all as promised
  1    a disagreement or a failed check
  2    usage: a wrong name, value or file
  3    something did not run
  130  interrupted"""


class _Group(click.Group):
    """Turns errors into one line on standard error and a fixed exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            command = (error.ctx or ctx).command_path
            click.echo(f"isometry: {error.format_message()} (see {command} --help)", err=True)
            ctx.exit(USAGE)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("isometry: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            line, code = _explain(error)
            click.echo(f"isometry: {line}", err=True)
            ctx.exit(code)


def _explain(error: Exception) -> tuple[str, int]:
    from isometry.common.errors import BackendNotInstalled, IsometryError

    text = " ".join(str(error).split())
    if isinstance(error, BackendNotInstalled):
        return text, NOT_RUN
    if isinstance(error, IsometryError):
        return text, USAGE
    return f"{type(error).__name__}: {text} (isometry --debug shows where)", NOT_RUN


@click.group(
    cls=_Group,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="isometry")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Numerical stability and initialization, the same in five frameworks.

    \b
    Examples:
      isometry compare                          every study on every framework installed
      isometry compare xavier --backends numpy,torch
      isometry run matrix-chain --backend jax -o jax.json
      isometry source sigmoid_gradient --backend torch
      isometry identify weights.npy --fan-in 512 --fan-out 256
    """  # noqa: D301


# --- options that commands share ----------------------------------------------------------------


def _pairs(
    _ctx: click.Context, _parameter: click.Parameter, values: Iterable[str]
) -> dict[str, str]:
    """Parse ``name=value`` strings."""
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"must read name=value; received {value!r}")
        pairs[name] = text
    return pairs


_settings = click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_pairs,
    help="Set a parameter of the study (see `isometry studies`); may be repeated.",
)
_seed = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of all draws."
)


def _listed(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Parse names separated by commas, each once."""
    if value is None:
        return ()
    names = tuple(dict.fromkeys(filter(None, (name.strip() for name in value.split(",")))))
    if not names:
        raise click.BadParameter(f"must name backends, such as numpy,torch; received {value!r}")
    return names


_chosen = click.option(
    "--backends",
    "chosen",
    metavar="A,B",
    callback=_listed,
    help="Which must run; without it all that are installed.",
)


def _require(what: str, absent: Sequence[str], extra: str) -> None:
    """Exit unless nothing is absent of what an extra installs."""
    if absent:
        text = f'{what} needs {", ".join(absent)}: pip install "isometry[{extra}]"'
        click.echo(f"isometry: {text}", err=True)
        sys.exit(NOT_RUN)


def _assign(names: Sequence[str], settings: dict[str, str]) -> dict[str, dict[str, str]]:
    """Give each study the settings that it has; each must belong to one of them at least."""
    from isometry.common import studies
    from isometry.common.errors import unknown_name

    known = {name: {p.name: p for p in studies.find(name).parameters} for name in names}
    for setting in settings:
        if not any(setting in parameters for parameters in known.values()):
            every = {p for parameters in known.values() for p in parameters}
            raise unknown_name(f"parameter of {', '.join(names)}", setting, every)
    assigned: dict[str, dict[str, str]] = {}
    for name, parameters in known.items():
        assigned[name] = {key: text for key, text in settings.items() if key in parameters}
        for key, text in assigned[name].items():
            parameters[key].parse(text)  # a wrong value is an error before anything runs
    return assigned


# --- lists --------------------------------------------------------------------------------------


@main.command()
@click.argument("names", metavar="[BACKEND]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--here", is_flag=True, hidden=True, help="Inspect in this process.")
def backends(names: tuple[str, ...], as_json: bool, here: bool) -> None:
    """List the backends: installed or how to install, version, device, what they can do.

    Each framework is imported in a process of its own: a broken one is a row like any other.

    \b
    Examples:
      isometry backends
      isometry backends torch --json
    """  # noqa: D301
    import json
    from dataclasses import asdict

    from isometry.common import isolation, registry

    for name in names:
        _known_backend(name)
    chosen = names or registry.names()
    if here:
        rows = [_inspect(name) for name in chosen]
    elif as_json:
        rows = isolation.inspect(chosen)
    else:
        from isometry.common.reports import terminal

        with terminal.console(stderr=True).status("asking each framework"):
            rows = isolation.inspect(chosen)
        terminal.console().print(terminal.backends(rows))
        return
    click.echo(json.dumps([asdict(row) for row in rows], indent=None if here else 1))


def _inspect(name: str) -> Inspection:
    from isometry.common import isolation, registry
    from isometry.common.errors import BackendNotInstalled

    try:
        nx = registry.load(name)
    except BackendNotInstalled as error:
        return isolation.Inspection(name, "not installed", str(error))
    return isolation.Inspection(
        name,
        "installed",
        framework=nx.framework,
        version=nx.version,
        device=nx.device,
        dtypes=nx.dtypes,
        capabilities=sorted(nx.capabilities),
        expected_failures=dict(nx.expected_failures),
    )


def _known_backend(name: str) -> None:
    """Raise unless the name is registered or a reference; imports no framework."""
    from isometry.common import checks, registry

    if ":" not in name:
        checks.choice("backend", name, registry.names())


@main.command()
def studies() -> None:
    """List the studies: the question each asks, and its parameters.

    \b
    Example:
      isometry studies
    """  # noqa: D301
    from isometry.common import studies as study
    from isometry.common.reports import terminal

    terminal.console().print(terminal.studies(study.find(name) for name in study.NAMES))


@main.command()
@click.argument("operation")
@click.option("--backend", metavar="B", required=True, help="Whose code.")
def source(operation: str, backend: str) -> None:
    """Print a backend's own code of an operation, a method of the contract or a word of nx.ops.

    \b
    Examples:
      isometry source sigmoid_gradient --backend torch
      isometry source scan --backend jax
    """  # noqa: D301
    from isometry.common import registry
    from isometry.common import source as code
    from isometry.common.reports import terminal

    found = code.of(registry.find(backend), operation)
    screen = terminal.console()
    screen.print(terminal.listings(found, colour=screen.is_terminal), soft_wrap=True)


# --- run ----------------------------------------------------------------------------------------


@main.command()
@click.argument("names", metavar="STUDY...", nargs=-1, required=True)
@click.option(
    "--backend", metavar="B", required=True, help="A registered name, or package.module:Class."
)
@_settings
@_seed
@click.option("--device", metavar="D", help="Where arrays are placed; the CPU by default.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The JSON file to write; with several studies the folder for STUDY/BACKEND.json.",
)
@click.option("--progress", type=click.Choice(["json"]), hidden=True, help="Events on stderr.")
def run(
    names: tuple[str, ...],
    backend: str,
    settings: dict[str, str],
    seed: int,
    device: str | None,
    output: Path,
    progress: str | None,
) -> None:
    """Run a study on one backend, in this process, and record its result.

    \b
    Examples:
      isometry run sigmoid-gradient --backend numpy -o numpy.json
      isometry run matrix-chain --backend torch --set length=200 --seed 7 -o torch.json
    """  # noqa: D301
    from isometry.common import isolation

    try:
        passed = _record(names, backend, settings, seed, device, output, quiet=progress is not None)
    except Exception as error:
        if progress:
            isolation.emit("failed", status=isolation.status_of(error), message=_explain(error)[0])
        raise
    if not passed:
        sys.exit(FAILED)


def _record(
    names: Sequence[str],
    backend: str,
    settings: dict[str, str],
    seed: int,
    device: str | None,
    output: Path,
    *,
    quiet: bool,
) -> bool:
    """Run the studies one after the other; return whether every check holds."""
    from isometry.common import isolation, registry, results
    from isometry.common import studies as study
    from isometry.common.errors import InvalidArgument
    from isometry.common.reports import terminal

    assigned = _assign(names, settings)
    paths = {name: isolation.result_path(output, name, backend) for name in assigned}
    if len(paths) == 1:
        paths = dict.fromkeys(paths, output)
    for path in paths.values():
        if path.is_dir():
            raise InvalidArgument(
                f"-o must name a file; received the folder {path}; try {path / 'result.json'}"
            )
        results.check_writable(path.parent)
    nx = registry.load(backend, device=device)
    passed = True
    for name, parameters in assigned.items():
        with _tell(name, quiet) as tell:
            found = study.run(name, nx, seed=seed, parameters=parameters, tell=tell)
        results.save(found, paths[name])
        passed &= found.passed
        if quiet:
            isolation.emit("end", study=name)
        else:
            screen = terminal.console()
            screen.print(terminal.result(found))
            screen.print(f"result  {paths[name]}", soft_wrap=True)
    return passed


@contextlib.contextmanager
def _tell(study: str, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Give what reports progress: as events to a parent, or as a bar to a person."""
    from isometry.common import isolation
    from isometry.common.reports import terminal

    if not quiet:
        with terminal.Bar() as bar:
            yield bar.tell
        return
    last = -1.0

    def tell(done: int, total: int, what: str) -> None:
        nonlocal last
        if time.monotonic() - last > 0.1:  # a study may tell at every step
            last = time.monotonic()
            isolation.emit("progress", study=study, done=done, total=total)

    yield tell


# --- compare ------------------------------------------------------------------------------------


def _interpreters(
    _ctx: click.Context, _parameter: click.Parameter, values: Iterable[str]
) -> dict[str, str]:
    """Parse ``backend=interpreter`` strings; each interpreter must be there."""
    import shutil

    found = {}
    for name, path in _pairs(_ctx, _parameter, values).items():
        interpreter = shutil.which(os.path.expanduser(path))
        if interpreter is None:
            raise click.BadParameter(f"no Python can be executed at {path!r}, for {name!r}")
        found[name] = interpreter
    return found


@main.command()
@click.argument("targets", metavar="[STUDY | FILE.json]...", nargs=-1)
@_chosen
@_settings
@_seed
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=float,
    default=600.0,
    show_default=True,
    help="For each study on each backend.",
)
@click.option(
    "--python",
    "interpreters",
    metavar="BACKEND=INTERPRETER",
    multiple=True,
    callback=_interpreters,
    help="Run a backend in another Python, which has isometry too; may be repeated.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(1),
    help="Backends that run at once; by default one per core.",
)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=Path("isometry-results"),
    show_default=True,
    help="Where the page and figures of this run go, and results, beside those of earlier runs.",
)
@click.option(
    "--natives",
    is_flag=True,
    help="Lay side by side what the libraries' own layers and optimizers do by default: of those "
    "named, or of all.",
)
def compare(
    targets: tuple[str, ...],
    chosen: tuple[str, ...],
    settings: dict[str, str],
    seed: int,
    timeout: float,
    interpreters: dict[str, str],
    jobs: int | None,
    output: Path,
    natives: bool,
) -> None:
    """Lay backends side by side: run studies on each, or take results recorded before.

    Every backend runs in a process of its own; one that crashes or hangs becomes a row that says
    so. STUDY may be a group, "chapter", "depth" or "remedies"; without it the chapter runs.
    Recorded files are compared with each other and with what runs beside them.

    \b
    Examples:
      isometry compare
      isometry compare xavier symmetry --backends numpy,torch --seed 7
      isometry compare depth                    the studies beyond the chapter
      isometry compare remedies                 optimizers, and where they diverge
      isometry compare matrix-chain --set length=200 --timeout 60
      isometry compare sigmoid-gradient --python mxnet=/opt/mxnet/bin/python
      isometry compare laptop.json cluster.json -o both
      isometry compare --natives                the defaults of every library installed
      isometry compare --natives torch.nn keras
    """  # noqa: D301
    from isometry.common import checks, processes, results

    if natives:
        if chosen or settings or interpreters:
            raise click.UsageError(
                "--backends, --set and --python say how to run studies; --natives runs none"
            )
        _atlas(targets, output)
    checks.finite("--timeout", timeout, low=0, open_low=True)
    names, files = _targets(targets)
    work = _work(names, chosen, settings, interpreters)
    recorded = [_recorded(file) for file in files]
    results.check_writable(output)
    outcomes: list[Outcome] = []
    if work:
        jobs = jobs or min(processes.cores(), len(work))
        outcomes = _run_all(work, output / "results", seed, timeout, jobs)
    found = [*(results.load(o.path) for o in outcomes if o.path), *recorded]
    outcomes = _named(outcomes, found)
    agreed = _report(_by_study(found), outcomes, output)
    sys.exit(_code(outcomes, agreed, required=bool(chosen)))


def _atlas(libraries: Sequence[str], output: Path) -> NoReturn:
    """Measure the defaults of these libraries, or of all, and exit."""
    from isometry.common import results
    from isometry.common.natives import atlas
    from isometry.common.reports import atlas as reports
    from isometry.common.reports import terminal

    results.check_writable(output)
    with terminal.Bar() as bar:
        found = atlas.run(libraries, output, bar.tell)
    reports.write(found, output / "atlas.html")
    results.write_atomically(output / "atlas.md", reports.markdown(found).encode())
    screen = terminal.console()
    screen.print(reports.terminal(found))
    screen.print(f"page     {output / 'atlas.html'}", soft_wrap=True)
    sys.exit(FAILED if found.failed else AS_PROMISED if found.complete else NOT_RUN)


def _targets(targets: Sequence[str]) -> tuple[tuple[str, ...], list[Path]]:
    """Tell studies from files; the studies of the chapter if neither is named."""
    from isometry.common import checks, studies

    known = (*studies.NAMES, *studies.GROUPS)  # also where a folder has such a name
    files = [Path(t) for t in targets if t not in known and _is_file(t)]
    asked = [t for t in targets if t in known or not _is_file(t)]
    for name in asked:
        checks.choice("study", name, known)
    names = [study for name in asked for study in studies.GROUPS.get(name, (name,))]
    return (tuple(dict.fromkeys(names)) if targets else studies.GROUPS["chapter"]), files


def _recorded(file: Path) -> Result:
    from isometry.common import checks, results, studies

    found = results.load(file)
    checks.choice(f"study in {file}", found.study, studies.NAMES)
    return found


def _is_file(target: str) -> bool:
    return target.endswith(".json") or Path(target).exists()


def _work(
    names: Sequence[str],
    chosen: Sequence[str],
    settings: dict[str, str],
    interpreters: dict[str, str],
) -> list[Work]:
    from isometry.common import checks, isolation, registry

    if not names and (chosen or settings or interpreters):
        raise click.UsageError(
            "--backends, --set and --python say how to run studies; only files were named"
        )
    for name in chosen:
        _known_backend(name)
    backends = chosen or registry.names()
    for name in interpreters:
        checks.choice("backend in --python", name, backends)
    studies = _assign(names, settings)
    return [
        isolation.Work(name, studies, interpreters.get(name, sys.executable))
        for name in backends
        if studies
    ]


def _run_all(
    work: Sequence[Work], folder: Path, seed: int, timeout: float, jobs: int
) -> list[Outcome]:
    from isometry.common import isolation
    from isometry.common.reports import terminal

    with terminal.Board({item.backend: len(item.studies) for item in work}) as board:
        return isolation.compare(
            work, folder=folder, seed=seed, timeout=timeout, jobs=jobs, watcher=board
        )


def _named(outcomes: Sequence[Outcome], found: Sequence[Result]) -> list[Outcome]:
    """Call a backend given as module:Class by its own name, once a result tells it."""
    from dataclasses import replace

    ran = [o.backend for o in outcomes if o.path]
    names = {asked: r.backend for asked, r in zip(ran, found, strict=False)}
    return [replace(o, backend=names.get(o.backend, o.backend)) for o in outcomes]


def _by_study(found: Iterable[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in found:
        groups.setdefault(result.study, []).append(result)
    return groups


def _report(results: Mapping[str, list[Result]], outcomes: Sequence[Outcome], folder: Path) -> bool:
    """Print the tables, write figures and page, say where; return whether all agree."""
    from isometry.common.reports import agreement, figures, page, terminal

    screen = terminal.console()
    if outcomes:
        screen.print(terminal.outcomes(outcomes))
    verdicts = {study: agreement.agree(group) for study, group in results.items()}
    for verdict in verdicts.values():
        screen.print(terminal.agreement(verdict))
    screen.print(terminal.summary(outcomes, verdicts.values()))
    drawn = figures.draw(dict(results), folder / "figures")
    page.write(results, outcomes, verdicts, drawn, folder / "index.html")
    screen.print(f"page     {folder / 'index.html'}", soft_wrap=True)
    screen.print(f"figures  {folder / 'figures'} ({len(drawn)} files)", soft_wrap=True)
    if any(o.path for o in outcomes):
        screen.print(f"results  {folder / 'results'}", soft_wrap=True)
    return all(verdict.passed for verdict in verdicts.values())


def _code(outcomes: Sequence[Outcome], agreed: bool, *, required: bool) -> int:
    """Return the exit code: of usage, disagreement, and what did not run, the first that applies.

    A backend that nobody asked for by name may be absent.
    """
    statuses = {o.status for o in outcomes}
    if "refused" in statuses:
        return USAGE
    if not agreed:
        return FAILED
    absent_is_fine = not required and "ran" in statuses
    lost = statuses - ({"ran", "not installed"} if absent_is_fine else {"ran"})
    return NOT_RUN if lost else AS_PROMISED


# --- page ---------------------------------------------------------------------------------------


@main.command()
@click.argument("files", metavar="[FILE.json]...", nargs=-1, type=click.Path(path_type=Path))
@_chosen
@_seed
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="For each study on each backend.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE.html",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("isometry.html"),
    show_default=True,
    help="The page to write.",
)
def page(
    files: tuple[Path, ...],
    chosen: tuple[str, ...],
    seed: int,
    timeout: float,
    output: Path,
) -> None:
    """Make one interactive page of recorded runs and exact theory: a file without requests.

    The studies default-layers, matrix-chain and layer-by-layer run on every backend installed, each
    in a process of its own, in two minutes or so; or the page is made from FILEs that `isometry
    run` or `isometry compare` recorded of them.

    \b
    Examples:
      isometry page -o page.html
      isometry page --backends numpy,torch
      isometry page isometry-results/results/*/numpy.json
    """  # noqa: D301
    import tempfile

    from isometry.common import processes, results
    from isometry.common.reports import explorer, terminal

    _require("the page", explorer.missing(), "page")
    if files and chosen:
        raise click.UsageError("--backends says where to run studies; FILEs are recorded already")
    results.check_writable(output.parent)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        if files:
            found = [_recorded(file) for file in files]
        else:
            work = _work(explorer.STUDIES, chosen, {}, {})
            jobs = min(processes.cores(), len(work))
            outcomes = _run_all(work, Path(folder), seed, timeout, jobs)
            found = [results.load(o.path) for o in outcomes if o.path]
    screen = terminal.console()
    if outcomes:
        screen.print(terminal.outcomes(_named(outcomes, found)))
    explorer.write(_by_study(found), output)
    screen.print(f"page  {output}", soft_wrap=True)
    passed = all(result.passed for result in found)
    if outcomes:
        sys.exit(_code(outcomes, passed, required=bool(chosen)))
    sys.exit(AS_PROMISED if passed else FAILED)


# --- identify -----------------------------------------------------------------------------------


@main.command()
@click.argument(
    "file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--key", metavar="NAME", help="Which array of an .npz; needed if it has several.")
@click.option("--fan-in", metavar="N", type=click.IntRange(1), help="Inputs of a unit.")
@click.option("--fan-out", metavar="N", type=click.IntRange(1), help="Outputs of an input unit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def identify(
    file: Path, key: str | None, fan_in: int | None, fan_out: int | None, as_json: bool
) -> None:
    """Name the law of weights: every known law that they cannot be told from.

    FILE is an array as numpy.save writes it, or an .npz of several. Laws that are the same at these
    fans are one, with all their names. Exits with 1 if no known law is left.

    \b
    Examples:
      isometry identify dense.npy --fan-in 512 --fan-out 256
      isometry identify checkpoint.npz --key encoder/kernel --fan-in 512 --fan-out 256 --json
      isometry identify embedding.npy            only laws without a fan
    """  # noqa: D301
    import json

    from isometry.common.reports import identification, terminal
    from isometry.common.statistics.identify import identify as find

    found = find(_weights(file, key), fan_in=fan_in, fan_out=fan_out)
    if as_json:
        click.echo(json.dumps(identification.document(found), indent=1))
    else:
        terminal.console().print(identification.terminal(found))
    sys.exit(AS_PROMISED if found.known else FAILED)


def _weights(file: Path, key: str | None) -> Any:
    """Load an array; never a pickle. NumPy writes bfloat16 as two bytes without a type."""
    import numpy as np

    from isometry.common import checks
    from isometry.common.errors import InvalidArgument

    try:
        loaded = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InvalidArgument(
            f"{file} must be an .npy or .npz file of numbers, as numpy.save writes it: {error}"
        ) from error
    if isinstance(loaded, np.ndarray):
        if key is not None:
            raise InvalidArgument(f"--key is for an .npz; {file} holds one array: leave it out")
    else:
        names = loaded.files
        if key is None and len(names) != 1:
            raise InvalidArgument(f"{file} holds {', '.join(names) or 'no array'}: choose by --key")
        loaded = loaded[checks.choice(f"array in {file}", key or names[0], names)]
    if loaded.dtype.kind == "V" and loaded.dtype.itemsize == 2:
        return (loaded.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return loaded


# --- grade --------------------------------------------------------------------------------------


@main.command()
@click.argument(
    "file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--law", metavar="NAME", help="The initializer that was asked for, as he_normal.")
@click.option(
    "--layout",
    type=click.Choice(["out_in", "in_out"]),
    default="out_in",
    show_default=True,
    help="Of weights: (out, in, *kernel) or (*kernel, in, out).",
)
@click.option(
    "--convolution", is_flag=True, help="Ask for the kernel of a convolution, and images, too."
)
@_seed
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="For the whole file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def grade(
    file: Path,
    law: str | None,
    layout: str,
    convolution: bool,
    seed: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Grade a student's FILE in words: an initializer, activations, normalizations.

    FILE is Python code of its own that takes and returns NumPy arrays, with one or more of

    \b
      my_initializer(shape, rng)                 rng: a numpy.random.Generator
      my_sigmoid(x), my_tanh(x), my_relu(x), my_leaky_relu(x, slope)
      my_sigmoid_gradient(x) and so on: the derivatives
      my_batch_norm(x, scale, shift, eps), my_layer_norm(x, scale, shift, eps)
      my_rms_norm(x, scale, eps)

    It runs in a process of its own with limits of time and memory, which guard against accidents,
    not against attacks: grade only what you would run. Exits with 0 if all is right, 1 if
    something is wrong, 2 if the file or a function could not be graded.

    \b
    Examples:
      isometry grade homework.py --law xavier_uniform
      isometry grade homework.py                without --law any known law is right, and named
      isometry grade homework.py --law he_normal --layout in_out --convolution --json
    """  # noqa: D301
    import json

    from isometry.common.grading import grader
    from isometry.common.reports import grades, terminal

    found = grader.grade(
        file, law=law, layout=layout, convolution=convolution, seed=seed, timeout=timeout
    )
    if as_json:
        click.echo(json.dumps(grades.document(found), indent=1))
    else:
        terminal.console().print(grades.terminal(found))
    sys.exit({"right": AS_PROMISED, "wrong": FAILED, "not graded": USAGE}[found.outcome])


# --- recipe -------------------------------------------------------------------------------------


@main.command()
@click.argument("subject", metavar="SUBJECT", required=False)
@click.option("--from", "source", metavar="LIBRARY", help="Whose defaults are wanted.")
@click.option("--to", "target", metavar="LIBRARY", help="Whose code is printed.")
@click.option("--list", "listed", is_flag=True, help="List the libraries and the subjects.")
def recipe(subject: str | None, source: str | None, target: str | None, listed: bool) -> None:
    """Print the code that makes a layer of one library start and act as another library's does.

    The program is complete and runs as it stands: change its sizes. What is the source's default
    stands in its first lines; what the target can do only otherwise, beside the line that does it.

    \b
    Examples:
      isometry recipe --from torch --to flax dense
      isometry recipe --from keras --to torch batch_norm > norm.py
      isometry recipe --list
    """  # noqa: D301
    from isometry.common import recipes

    if listed:
        if subject or source or target:
            raise click.UsageError("--list lists everything; leave the other arguments out")
        click.echo(recipes.listing(), nl=False)
        return
    if not (subject and source and target):
        raise click.UsageError(
            "name a SUBJECT, the library it comes --from and the one it goes --to; "
            "isometry recipe --list shows the names"
        )
    subject = subject.lower().replace("-", "_")
    click.echo(recipes.recipe(source.lower(), target.lower(), subject), nl=False)


# --- lesson -------------------------------------------------------------------------------------


@main.command()
@click.argument("topic", metavar="[TOPIC]", required=False)
@click.option(
    "--backend",
    metavar="BACKEND",
    default="numpy",
    show_default=True,
    help="In whose words the code is: numpy, torch, tensorflow, jax or mxnet.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An executed notebook .ipynb or page .html, or a script .py; by default "
    "TOPIC-BACKEND.ipynb.",
)
def lesson(topic: str | None, backend: str, output: Path | None) -> None:
    """Make a lesson in a framework's own words: an executed notebook, a page or a script.

    Without a TOPIC the lessons are listed.

    \b
    Examples:
      isometry lesson
      isometry lesson sigmoid --backend jax -o lesson.ipynb
      isometry lesson xavier --backend torch -o lesson.html
    """  # noqa: D301
    from isometry.common import lessons
    from isometry.common.reports import terminal

    if topic is None:
        if output is not None:
            raise click.UsageError("name the TOPIC to write; isometry lesson alone lists them")
        for name, title in lessons.TOPICS.items():
            click.echo(f"{name:15} {title}")
        return
    _require("a lesson", lessons.missing(), "lessons")
    output = output or Path(f"{topic}-{backend}.ipynb")
    with terminal.Bar() as bar:
        lessons.write(topic, backend, output, bar.tell)
    click.echo(f"lesson  {output}")


# --- conform ------------------------------------------------------------------------------------


@main.command()
@click.argument("targets", metavar="[BACKEND]", nargs=-1)
@click.option(
    "--natives",
    is_flag=True,
    help="Measure what the frameworks' own libraries ship instead: those named, or all.",
)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=Path("isometry-conformance"),
    show_default=True,
    help="Where report.html, report.json, junit.xml, summary.md and badge.json go; of natives "
    "scoreboard.html and scoreboard.json.",
)
@click.option(
    "--expect",
    metavar="FILE.toml",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Expected failures: a table per clause, with reason and, if wanted, link.",
)
@click.option("--smoke", is_flag=True, help="Only what tells in seconds whether it is wired.")
@click.option(
    "--profile",
    "profiles",
    metavar="P,Q",
    callback=_listed,
    help="Of core, gradients, second-order, compiled, half; by default all that it declares.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Draw everything anew: which set of seeds.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds for one case; one that takes longer reads crashed, and the rest goes on.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(1),
    help="Processes that share out the clauses; by default one per core up to 4, one if --smoke.",
)
def conform(
    targets: tuple[str, ...],
    natives: bool,
    output: Path,
    expect: Path | None,
    smoke: bool,
    profiles: tuple[str, ...],
    seed: int,
    timeout: float,
    jobs: int | None,
) -> None:
    """Judge a backend by the conformance suite: a registered name, or package.module:Class.

    The suite runs in processes of its own; a clause that brings one down reads "crashed", and
    those after it run in a new one. A profile is met if every clause of it passes.

    \b
    Examples:
      isometry conform torch
      isometry conform mypackage.adapter:MyBackend --smoke
      isometry conform jax --profile core,gradients --expect failures.toml -o report
      isometry conform --natives                every library installed, side by side
      isometry conform --natives torch.nn keras
    """  # noqa: D301
    if natives:
        _score(targets, output)
    if len(targets) != 1:
        given = " ".join(targets) or "none"
        raise click.UsageError(f"name one BACKEND to judge, or ask for --natives; received {given}")
    (backend,) = targets
    from isometry.common import checks, conformity, processes, results
    from isometry.common.reports import conformity as reports
    from isometry.common.reports import terminal

    _known_backend(backend)
    for name in profiles:
        checks.choice("profile", name, conformity.PROFILES)
    _require("the suite", conformity.missing(), "test")
    results.check_writable(output)
    with terminal.Bar() as bar:
        report = conformity.run(
            backend,
            expect=expect,
            smoke=smoke,
            profiles=profiles,
            seed=seed,
            timeout=timeout,
            jobs=jobs or (1 if smoke else min(processes.cores(), SHARES)),
            tell=bar.tell,
        )
    conformity.save(report, output / "report.json")
    reports.page(report, output / "report.html")
    results.write_atomically(output / "junit.xml", reports.junit(report))
    results.write_atomically(output / "summary.md", reports.markdown(report).encode())
    results.write_atomically(output / "badge.json", reports.badge(report).encode())
    screen = terminal.console()
    screen.print(reports.terminal(report))
    screen.print(f"report  {output / 'report.html'}", soft_wrap=True)
    sys.exit(FAILED if report.failed else AS_PROMISED if report.complete else NOT_RUN)


def _score(libraries: Sequence[str], output: Path) -> NoReturn:
    """Measure the natives of these libraries, or of all, and exit."""
    from isometry.common import results
    from isometry.common.natives import scoreboard
    from isometry.common.reports import natives as reports
    from isometry.common.reports import terminal

    results.check_writable(output)
    with terminal.Bar() as bar:
        board = scoreboard.run(libraries, output, bar.tell)
    reports.write(board, output / "scoreboard.html")
    screen = terminal.console()
    screen.print(reports.terminal(board))
    screen.print(f"report  {output / 'scoreboard.html'}", soft_wrap=True)
    sys.exit(FAILED if board.failed else AS_PROMISED if board.complete else NOT_RUN)


@main.command()
@click.option(
    "-o",
    "--output",
    metavar="FILE.md",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it there instead of printing it.",
)
def spec(output: Path | None) -> None:
    """Print the specification: every clause with its formula, source, oracle and error rates.

    \b
    Example:
      isometry spec -o specification.md
    """  # noqa: D301
    from isometry.common import results
    from isometry.conformance import specification

    if output is None:
        click.echo(specification.page(), nl=False)
        return
    results.write_atomically(output, specification.page().encode())
