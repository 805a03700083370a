"""Decides what the job's input consists of: files that hold everything, or files to be joined.

1. A dataset's folder, as BEIR and MTEB publish them: files and folders named corpus, queries, qrels, top_ranked,
   instruction, each with a subset before (``en-corpus``) or a split after its name (``qrels/test.tsv``,
   ``corpus/test-00000-of-00001.parquet``). Candidates are, first found: ``top_ranked``; a run (``*.trec``, ``*.run``)
   in the folder; all documents that the qrels judge for a query.
2. ``corpus`` or ``queries`` is given: ``path`` names documents by id. Either may be a dataset's folder.
3. Files of columns without a header that hold their texts (MS MARCO's top1000) need no corpus, but are sorted by the
   join.
4. Anything else holds everything; a folder that ``save_to_disk`` wrote stands for its data files.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchrank.errors import InputError, Place, QueryError
from batchrank.io import storage
from batchrank.io.opening import COMPRESSED
from batchrank.job.sections import Columns, Input
from batchrank.read import detect, textfiles
from batchrank.read.base import COLUMNAR, Source
from batchrank.read.detect import INPUTS, Found
from batchrank.read.files import local, looked_up, named, unfolded, within

_RECORDS = (suffix for name in ("jsonl", *COLUMNAR) for suffix in INPUTS[name].suffixes)
_EXTENSIONS = "|".join(map(re.escape, (*_RECORDS, ".tsv", ".csv")))
_COMPRESSED = "|".join(map(re.escape, COMPRESSED))
_MEMBER = re.compile(
    r"(?:(?P<subset>[^/]+)-)?(?P<role>corpus|queries|qrels|top_ranked|instruction)"
    r"(?:/(?P<split>[^/]+?)(?:-\d+(?:-of-\d+)?)?)?"
    rf"(?:{_EXTENSIONS})(?:{_COMPRESSED})?"
)
_RUN = re.compile(rf"[^/]+\.(?:trec|run)(?:{_COMPRESSED})?")
_FOLDERS = ("auto", "beir", "mteb")
_DEFAULT_SPLIT = "test"


@dataclass(frozen=True, slots=True)
class Joined:
    """Files to be joined.

    Attributes:
        candidates: runs, qrels or lists of ids.
        corpus: documents by id; none when the candidates hold their texts.
        queries: queries by id; none when the candidates hold their texts.
        instructions: what is asked after each query's text, by its id.
    """

    candidates: Sequence[Source]
    corpus: Sequence[Source] = ()
    queries: Sequence[Source] = ()
    instructions: Sequence[Source] = ()

    @property
    def sources(self) -> list[Source]:
        """All files."""
        beside = [source for source in self.instructions if source not in self.queries]
        return [*self.candidates, *self.corpus, *self.queries, *beside]


@dataclass(frozen=True, slots=True)
class _Member:
    path: str
    role: str
    subset: str | None
    split: str | None


def layout(source: Input) -> Joined | list[Source]:
    """Tell which files there are and what they are to each other.

    Raises:
        InputError: a path matches nothing, or a part of a dataset is missing or not told which.
        MissingExtraError: an address needs a library that isn't installed.
    """
    if (dataset := _only(source.path, source)) is not None:
        return dataset.joined()
    candidates = named(unfolded(source.path, source.split), source.format)
    if source.corpus is None and source.queries is None:
        return (
            candidates
            if all(_is_whole(found, source.columns) for found in candidates)
            else Joined(candidates)
        )
    return Joined(candidates, *_texts(source))


def _is_whole(source: Source, columns: Columns) -> bool:
    """Whether a file holds the texts of queries and documents."""
    if source.format not in ("tsv", "csv"):
        return True
    try:
        return textfiles.is_whole(source, columns)
    except QueryError as error:
        raise InputError(f"{Place(source.name, 'line', 1)}: {error}") from error


def _texts(source: Input) -> tuple[Sequence[Source], ...]:
    """The corpus, the queries and their instructions that the job names; one folder may stand for all."""
    corpus, queries = source.corpus or (), source.queries or ()
    in_corpus, in_queries = _only(corpus, source), _only(queries, source)
    shared = in_corpus or in_queries
    first = in_corpus.role("corpus") if in_corpus else named(unfolded(corpus, source.split), key="corpus")
    if not corpus and in_queries:
        first = in_queries.role("corpus")
    if in_queries or (not queries and shared):
        assert shared is not None
        return first, *(in_queries or shared).queries()
    return first, named(unfolded(queries, source.split), key="queries")


def _only(paths: Sequence[str], source: Input) -> "_Dataset | None":
    """The dataset in a folder, if that is all the paths name."""
    if (
        len(paths) != 1
        or source.format not in (*_FOLDERS, "trec", "tsv", "csv")
        or not storage.is_folder(local(paths[0]))
    ):
        return None
    if source.format in ("trec", "tsv", "csv") and paths == source.path:
        return None
    dataset = _Dataset(local(paths[0]), source)
    if dataset.complete:
        return dataset
    if source.format in ("beir", "mteb") and paths == source.path:
        raise InputError(
            f"input.path: {storage.shown(paths[0])} is no dataset's folder: it lacks corpus or queries (corpus.jsonl, "
            "or corpus/test.parquet); correct the path"
        )
    return None


class _Dataset:
    """A folder with a corpus and queries in it."""

    def __init__(self, folder: str, source: Input) -> None:
        self._folder, self._split, self._subset = folder, source.split, source.subset
        names = {path: storage.relative(path, folder) for path in storage.entries(folder, depth=2)}
        found = [(path, _MEMBER.fullmatch(name)) for path, name in names.items()]
        self._members = [_Member(path, m["role"], m["subset"], m["split"]) for path, m in found if m]
        self._runs = [path for path, name in names.items() if _RUN.fullmatch(name)]

    @property
    def complete(self) -> bool:
        """Whether there is a corpus and a collection of queries."""
        return {"corpus", "queries"} <= {member.role for member in self._members}

    def joined(self) -> Joined:
        """The files to be joined."""
        return Joined(self._candidates(), self.role("corpus"), *self.queries())

    def queries(self) -> tuple[list[Source], list[Source]]:
        """The files of queries, and those of their instructions."""
        queries = self.role("queries")
        if any(member.role == "instruction" for member in self._members):
            return queries, self.role("instruction")
        return queries, within(queries)

    def everything(self) -> list[Source]:
        """All files of all subsets and splits."""
        return [detect.source(path) for path in (*(member.path for member in self._members), *self._runs)]

    def role(self, role: str) -> list[Source]:
        """The files of one role, in the subset and split that apply.

        Raises:
            InputError: there are several and the job says not which, or not the one it says.
        """
        members = self._in_subset(role)
        splits = sorted({member.split or "" for member in members})
        split = next((s for s in (self._split or self._chosen(), "") if s in splits), None)
        if split is None and len(splits) == 1:
            split = splits[0]
        if split is None:
            raise InputError(
                f"input.split: {role} in {storage.shown(self._folder)} has the parts {', '.join(splits)}; say which"
            )
        known = "qrels" if role == "qrels" else ""
        return [detect.source(m.path, role=known) for m in members if (m.split or "") == split]

    def _candidates(self) -> list[Source]:
        roles = {member.role for member in self._members}
        if "top_ranked" in roles:
            return self.role("top_ranked")
        if len(self._runs) == 1:
            return [detect.source(self._runs[0])]
        if self._runs:
            names = ", ".join(storage.relative(path, self._folder) for path in self._runs)
            raise InputError(
                f"input.path: {storage.shown(self._folder)} holds several runs ({names}); set input.path to the one to "
                "rerank, and input.corpus to the folder"
            )
        if "qrels" in roles:
            return self.role("qrels")
        raise InputError(
            f"input.path: {storage.shown(self._folder)} has a corpus and queries, but no candidates: no top_ranked, "
            "run or qrels; set input.path to a run, and input.corpus to the folder"
        )

    def _chosen(self) -> str | None:
        """The split of the candidates, for the other roles: ``test``, or the only one."""
        for role in ("top_ranked", "qrels"):
            splits = {member.split for member in self._members if member.role == role}
            if splits:
                return _DEFAULT_SPLIT if _DEFAULT_SPLIT in splits or len(splits) > 1 else splits.pop()
        return _DEFAULT_SPLIT

    def _in_subset(self, role: str) -> list[_Member]:
        members = [member for member in self._members if member.role == role]
        subsets = sorted({member.subset or "" for member in members})
        wanted = self._subset or (subsets[0] if len(subsets) == 1 else "")
        if wanted not in subsets:
            raise InputError(
                f"input.subset: {storage.shown(self._folder)} has the subsets {', '.join(s for s in subsets if s)} of "
                f"{role}; say which"
            )
        return [member for member in members if (member.subset or "") == wanted]


def find(paths: Iterable[str], format: str = "auto") -> list[Source]:
    """The files that the paths name; for a dataset's folder, all that are part of the dataset.

    Raises:
        InputError: a path matches nothing.
    """
    source = Input.model_validate({"path": tuple(paths), "format": format})
    dataset = _only(source.path, source)
    return named(unfolded(source.path, None), format) if dataset is None else dataset.everything()


def sources(source: Input) -> list[Source]:
    """All files that an input is read from, corpus and queries included.

    Raises:
        InputError: a path matches nothing, or a part of a dataset is missing or not told which.
    """
    found = layout(source)
    return found.sources if isinstance(found, Joined) else found


def notes(source: Input) -> list[str]:
    """What the job's paths name and isn't read, and why; a sentence each.

    Raises:
        InputError: a path matches nothing.
    """
    found: list[str] = []
    for key, paths in (("path", source.path), ("corpus", source.corpus), ("queries", source.queries)):
        if not paths or _only(paths, source) is not None:
            continue
        format = source.format if key == "path" else "auto"
        named_files = unfolded((path for path in paths if path != "-"), source.split)
        files = [looked_up(local(path), format, key) for path in named_files]
        read = [file for one in files for file in one.files]
        together = Found(read, {p: why for one in files for p, why in one.left.items()})
        found += together.notes(key) + [told for one in files for told in one.told]
    return found


def facts(source: Input) -> list[list[object]] | None:
    """The names, sizes and times of all files of an input, to tell whether it changed; None for standard input.

    Raises:
        InputError: a path matches nothing, or a part of a dataset is missing or not told which.
        OSError: a file is gone.
    """
    found = sources(source)
    if any(one.path is None for one in found):
        return None
    paths = [one.path for one in found if one.path is not None]
    return [[_absolute(path), *storage.stamp(path)] for path in paths]


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else str(Path(path).absolute())
