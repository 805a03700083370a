"""Text files of columns: what their columns hold is told by a header, by numbers or by all of the first lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from field_data import QUERIES, corpus, jsonl, lines, queries, run_file

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.read.reader import read

PAIRS = [
    (q["query_id"], q["query"], c["id"], c["text"], c["score"]) for q in QUERIES for c in q["candidates"]
]
_NAMES = ("query_id", "query", "doc_id", "text", "score")
EXPECTED = [
    (q["query_id"], q["query"], [(c["id"], c["text"], c["score"]) for c in q["candidates"]]) for q in QUERIES
]


def got(**keys: Any) -> list[Query | Failure]:
    return list(read(Input.model_validate(keys)))


def values(found: Sequence[Query | Failure]) -> list[Any]:
    rows = []
    for query in found:
        assert isinstance(query, Query), query
        assert query.first_stage_scores is not None
        scores = query.first_stage_scores.tolist()
        rows.append((query.id, query.text, list(zip(query.doc_ids, query.documents, scores, strict=True))))
    return rows


def joined(folder: Path, path: Path, **keys: Any) -> list[Query | Failure]:
    texts, asked = jsonl(folder / "corpus.jsonl", corpus()), jsonl(folder / "queries.jsonl", queries())
    return got(path=str(path), corpus=str(texts), queries=str(asked), **keys)


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize(
    "header", ["qid {} query {} pid {} passage {} score", "Query_ID{}Query{}DocID{}Text{}Score"]
)
def test_a_header_is_honoured(tmp_path: Path, separator: str, header: str) -> None:
    """It names the columns, whatever their order; it is no record."""
    name = "x.tsv" if separator == "\t" else "x.csv"
    path = lines(tmp_path / name, [[header.format(*[separator] * 4)], *PAIRS], separator)
    assert values(got(path=str(path))) == EXPECTED


def test_colberts_ranking_is_a_run(tmp_path: Path) -> None:
    """Query, document, rank and score: the score is no text, and the corpus supplies those."""
    rows = [(q, d, i % 23 + 1, s) for i, (q, _, d, _, s) in enumerate(PAIRS)]
    for header in ([], [("qid", "pid", "rank", "score")]):
        path = lines(tmp_path / "ranking.tsv", [*header, *rows])
        assert values(joined(tmp_path, path)) == EXPECTED
        with pytest.raises(InputError, match=r"set input\.(queries|corpus)"):
            got(path=str(path))


def test_a_run_of_three_columns_may_have_scores(tmp_path: Path) -> None:
    """Fractions in the third column are scores: no rank has one."""
    path = lines(tmp_path / "run.tsv", [(q, d, s + 0.5) for q, _, d, _, s in PAIRS])
    assert [q.id for q in joined(tmp_path, path) if isinstance(q, Query)] == [e[0] for e in EXPECTED]


def test_a_tab_within_a_text_is_a_bad_record(tmp_path: Path) -> None:
    """Robust04's topic 350 has one: it neither cuts the text nor makes a title of its start."""
    asked = [(q["_id"], q["text"]) for q in queries()]
    asked[3] = (asked[3][0], "Health and\tComputer Terminals")
    texts = jsonl(tmp_path / "corpus.jsonl", corpus())
    topics = lines(tmp_path / "topics.tsv", asked)
    found = got(path=str(run_file(tmp_path / "r.trec")), corpus=str(texts), queries=str(topics))
    failures = [f for f in found if isinstance(f, Failure)]
    assert [(f.cause, f.query_id, f.place.number) for f in failures] == [
        ("broken-line", None, 4),
        ("missing-query", "q2", 47),
    ]
    assert "the line has 3 columns, and the others have 2" in failures[0].message
    assert len(found) == 6


def test_quotes_keep_tabs_and_line_ends_within_a_text(tmp_path: Path) -> None:
    """As csv writers put them around such a text alone; other texts may begin with a quote of their own."""
    odd = ["one\ttab", 'two\nlines, "quoted"', '"to be" or not', '"all of it"', 'a " within', ""]
    raw = ['"one\ttab"', '"two\nlines, ""quoted"""', '"to be" or not', '"all of it"', 'a " within', '""']
    path = tmp_path / "x.tsv"
    path.write_text("".join(f"q1\td{i}\tsome query\t{text}\n" for i, text in enumerate(["plain", *raw])))
    (query,) = got(path=str(path))
    assert isinstance(query, Query)
    assert list(query.documents) == ["plain", *odd]


def test_a_corpus_with_a_header_may_have_its_title_last(tmp_path: Path) -> None:
    """As DPR's Wikipedia passages have it: id, text, title."""
    path = lines(
        tmp_path / "corpus.tsv", [("id", "text", "title"), *((d["_id"], d["text"], "T") for d in corpus())]
    )
    asked = lines(
        tmp_path / "q.csv", [("query_id", "query"), *((q["_id"], q["text"]) for q in queries())], ","
    )
    first = got(path=str(run_file(tmp_path / "r.trec")), corpus=str(path), queries=str(asked))[0]
    assert isinstance(first, Query)
    assert first.documents[0] == "T\n" + QUERIES[0]["candidates"][0]["text"]


def test_the_corpus_supplies_the_texts_that_a_column_lacks(tmp_path: Path) -> None:
    """A text of the file's own counts more; in a pair ``text`` is the document's, never the query's."""
    rows = [
        (q, d, "own" if i % 2 else "", "NA" if q == "q3" else s) for i, (q, _, d, _, s) in enumerate(PAIRS)
    ]
    path = lines(tmp_path / "x.csv", [("qid", "pid", "text", "score"), *rows], ",")
    found = [q for q in joined(tmp_path, path) if isinstance(q, Query)]
    assert [(q.id, q.text) for q in found] == [(q["query_id"], q["query"]) for q in QUERIES]
    for number, query in enumerate(found):
        texts = [c["text"] for c in QUERIES[number]["candidates"]]
        assert list(query.documents) == [
            "own" if (number * 23 + i) % 2 else text for i, text in enumerate(texts)
        ]
        assert (query.first_stage_scores is None) == (query.id == "q3")
    records = [{"qid": q, "pid": d, "text": t} for q, _, d, t, _ in PAIRS]
    texts_only = jsonl(tmp_path / "corpus.jsonl", corpus())
    with pytest.raises(InputError, match=r"names queries by id only; set input\.queries"):
        got(path=str(jsonl(tmp_path / "x.jsonl", records)), corpus=str(texts_only))


def test_numbers_name_columns_without_a_header(tmp_path: Path) -> None:
    """``input.columns`` counts them from 1, for what isn't known: the score first, the texts after."""
    path = lines(tmp_path / "x.tsv", [(s, q, d, "x", text, query) for q, query, d, text, s in PAIRS])
    columns = {"score": 1, "query_id": 2, "doc_id": 3, "text": 5, "query": 6}
    assert values(got(path=str(path), columns=columns)) == EXPECTED


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("q1", "d1", 1), ("q2", "d2", 1)],
            "could be those of an MS MARCO run or BEIR qrels; .*'q1\\\\td1\\\\t1'",
        ),
        ([("topic", "ref", "points"), ("q1", "d1", 2.5), ("q1", "d2", 1.5)], "seems to name the columns"),
        (
            [("q1", "d1", "one text", "x"), ("q1", "d2", "another", "x")],
            "the columns don't show what they hold",
        ),
        ([("q1", "d1", 2), ("q1", "d1", 2, 3)] * 2, "2 have 3, 2 have 4 columns"),
        ([("qid", "pid", "query", "text", "text"), (1, 2, 3, 4, 5)], "two columns are named 'text'"),
    ],
)
def test_what_is_ambiguous_shows_the_line_and_the_key(tmp_path: Path, rows: Any, message: str) -> None:
    """Nothing is guessed where two readings fit: neither is paid for."""
    with pytest.raises(InputError, match=message) as error:
        got(path=str(lines(tmp_path / "x.tsv", rows)))
    assert "line 1" in str(error.value)
    assert "input.columns" in str(error.value) or "rename" in str(error.value)


def test_trec_as_the_format_settles_what_could_be_qrels(tmp_path: Path) -> None:
    """The message's other key: a run of one document a query."""
    ranked = [(q["query_id"], q["candidates"][0]["id"], 1) for q in QUERIES]
    found = joined(tmp_path, lines(tmp_path / "x.tsv", ranked), format="trec")
    assert [q.id for q in found if isinstance(q, Query)] == [q["query_id"] for q in QUERIES]


def test_each_bad_line_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """Too many columns, a broken quote, text that isn't UTF-8, a score that is no number, no query id."""
    rows = [b"query_id,query,doc_id,text,score", b"q1,x,d1,a,1", b"q1,x,d2,a,b,1", b'q1,x,d3,"a"b,1']
    rows += [b"q1,x,d4,\xff,1", b"q2,x,d1,a,high", b",x,d1,a,1", b'q3,x,d1,"a\nb",1', b"q3,x,d2,c,"]
    path = tmp_path / "x.csv"
    path.write_bytes(b"\r\n".join(rows) + b"\r\n")
    found = got(path=str(path))
    assert [(f.cause, f.query_id, f.place.number) for f in found if isinstance(f, Failure)] == [
        ("broken-line", None, 3),
        ("broken-line", None, 4),
        ("invalid-utf8", None, 5),
        ("no-query-id", None, 7),
        ("wrong-type", "q2", 6),
    ]
    queries = [q for q in found if isinstance(q, Query)]
    assert [(q.id, list(q.documents)) for q in queries] == [("q1", ["a"]), ("q3", ["a\nb", "c"])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"qid,query,pid,text\rq1,x,d1,a\rq1,x,d2,b\r", "carriage returns alone"),
        (b'q1,x,"d"1,a\n' * 3, "none of the first lines can be read: the line is no record of CSV"),
        (b'"q1,x,d1,a\n' * 3, "none of the first lines can be read"),
    ],
)
def test_a_file_none_of_whose_lines_can_be_read_is_told(tmp_path: Path, data: bytes, message: str) -> None:
    """It is no empty file."""
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(InputError, match=message):
        got(path=str(tmp_path / "x.csv"))


def test_a_quote_that_never_ends_is_told(tmp_path: Path) -> None:
    """What stands before it is read; its query may lack documents."""
    path = tmp_path / "x.csv"
    path.write_text('qid,query,pid,text\nq1,x,d1,a\nq2,x,d1,b\nq2,x,d2,"c\nq3,x,d1,d\n')
    found = got(path=str(path))
    assert [f.cause for f in found if isinstance(f, Failure)] == ["truncated-file"] * 2
    assert [q.id for q in found if isinstance(q, Query)] == ["q1"]
    assert any("begins after line 3 doesn't end" in f.message for f in found if isinstance(f, Failure))


@pytest.mark.parametrize("above", ["sep=;", "# written on Monday; do not edit"])
def test_a_header_below_the_first_line_is_no_record(tmp_path: Path, above: str) -> None:
    """What stands above it, such as the line that tells Excel the mark, is to be removed, not guessed about."""
    path = lines(tmp_path / "x.csv", [[above], *(row[:4] for row in [_NAMES, *PAIRS])], ";")
    with pytest.raises(
        InputError, match=r"the line of names \(query_id, query, .* remove what stands before it"
    ):
        got(path=str(path))


def test_a_repeated_header_is_a_bad_record(tmp_path: Path) -> None:
    """Where files with headers were put together, the second header is no pair that is paid for."""
    rows = [row[:4] for row in (_NAMES, *PAIRS, _NAMES)]
    found = got(path=str(lines(tmp_path / "x.csv", rows, ",")))
    (bad,) = (one for one in found if isinstance(one, Failure))
    assert (bad.cause, bad.place.number) == ("repeated-header", len(rows))
    assert [one.id for one in found if isinstance(one, Query)] == [query_id for query_id, *_ in EXPECTED]


def test_carriage_returns_alone_are_told(tmp_path: Path) -> None:
    """Such a file is one line to everybody else."""
    (tmp_path / "x.tsv").write_bytes(b"query_id\tquery\tdoc_id\ttext\rq1\ta\td1\tb\rq1\ta\td2\tb\r")
    with pytest.raises(InputError, match="carriage returns alone"):
        got(path=str(tmp_path / "x.tsv"))
