"""Read rule files into checked, typed rules: which tables propagate, and how.

    file -> yamlfile (values and places) -> complaints (JSON Schema) -> drafts (typed rules)
         -> meaning (what they mean together) -> selection (order, digest) -> RuleSet

All problems of all files come out at once, in one ConfigurationError, each with
file:line:column. `shape` describes every key, `grammar` the small languages in their values.
`guessing` and `drafting` go the other way: from the tables to a file for a person to finish.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cellsync import yamlfile
from cellsync.errors import ConfigurationError, Problem
from cellsync.model import RuleSet
from cellsync.rules import complaints, drafts, meaning, selection
from cellsync.rules.drafts import Sheet
from cellsync.rules.selection import select
from cellsync.rules.shape import schema
from cellsync.textfiles import read_whole

__all__ = ["load", "packs", "schema", "select"]

_PACKAGE = Path(__file__).resolve().parent.parent


def packs() -> Mapping[str, Path]:
    """Return the packs that are shipped with cellsync: name -> file, sorted by name.

    An installed cellsync has them beside its modules; a checkout in its top-level ``rules``.
    """
    installed = sorted((_PACKAGE / "packs").glob("*.yaml"))
    return {file.stem: file for file in installed or sorted((_PACKAGE.parent / "rules").glob("*.yaml"))}


def load(sources: Sequence[str]) -> RuleSet:
    """Read shipped packs, by name, and rule files, by path.

    Every rule stands after the rules that it references, and otherwise in the order of
    ``sources`` and of each file. Reads files, and no database.
    Raises ConfigurationError with every problem of every file, in that order; a source that is
    not there or has no rules is a problem too, and so is having no sources.
    """
    files = {_file(source): None for source in sources}
    problems: list[Problem] = [] if files else [_no_sources()]
    sheets: list[Sheet] = []
    for file in files:
        try:
            sheets.append(_read(file))
        except ConfigurationError as error:
            problems += error.problems
    problems += [problem for sheet in sheets for problem in sheet.problems]
    sheets = drafts.amended(sheets)
    problems += [*_same_name(sheets), *meaning.check(sheets, complete=len(sheets) == len(files))]
    if problems:
        raise ConfigurationError(_in_order(problems, files))
    return selection.assemble(sheet.pack() for sheet in sheets)


def _file(source: str) -> Path:
    return packs().get(source, Path(source))


def _read(file: Path) -> Sheet:
    try:
        text = read_whole(file).decode("utf-8")
    except FileNotFoundError:
        known = sorted(packs())
        near = complaints.nearest(str(file), known)
        # Packs are named alike, so the nearest may not be the one that is meant.
        advice = f"did you mean {near!r}? The packs are" if near else "the packs are"
        message = f"no pack and no file has this name: {advice} {', '.join(known)}"
        raise ConfigurationError([_whole(file, message)]) from None
    except (OSError, ValueError) as error:
        # ValueError: bytes that are not UTF-8, or a path that no file can have.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError([_whole(file, f"the rule file cannot be read: {reason}")]) from error
    return drafts.read(yamlfile.load(text, file=str(file)), name=file.stem)


def _whole(file: Path, message: str) -> Problem:
    return Problem(str(file), 0, 0, message)


def _no_sources() -> Problem:
    known = ", ".join(packs())
    return _whole(
        Path("rules"),
        f"no rules are given: name a pack ({known}) or a file with -r, or in rules of cellsync.yaml",
    )


def _same_name(sheets: Sequence[Sheet]) -> Iterator[Problem]:
    first: dict[str, Sheet] = {}
    for sheet in sheets:
        earlier = first.setdefault(sheet.name, sheet)
        if earlier is not sheet:
            yield sheet.document.problem(
                ("pack",),
                f"the pack name {sheet.name!r} is taken by {earlier.document.file}: rename one of them",
            )


def _in_order(problems: Iterable[Problem], files: Iterable[Path]) -> list[Problem]:
    places = {str(file): place for place, file in enumerate(files)}
    return sorted(
        dict.fromkeys(problems),
        key=lambda problem: (places.get(problem.file, -1), problem.line, problem.column),
    )
