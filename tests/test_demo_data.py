"""The demo: a corpus of this machine's docstrings, questions with true answers, a first stage that finds them."""

import json
from pathlib import Path

import numpy as np

from batchrank.demo import MAX_CHARACTERS, corpus, first_stage, questions, write_demo
from batchrank.emulator.relevance import relevances


def reciprocal_rank(names: list[str], answers: tuple[str, ...]) -> float:
    """1 / rank of the first answer among the first ten, 0 if there is none."""
    return next((1 / rank for rank, name in enumerate(names[:10], 1) if name in answers), 0.0)


def test_the_corpus_is_several_thousand_distinct_docstrings() -> None:
    """Names and texts are unique, in order, each text begins with its name and has something to say."""
    documents = corpus()
    names = [document.id or "" for document in documents]
    assert 3000 < len(documents) < 20_000
    texts = [str(document.text) for document in documents]
    assert names == sorted(set(names)) and len(set(texts)) == len(documents)
    assert all(text.startswith(name) and "\n" in text for name, text in zip(names, texts, strict=True))
    assert all(len(text) <= MAX_CHARACTERS and " at 0x" not in text.split("\n")[0] for text in texts)
    assert {"shutil.copytree", "str.split", "os.path.join", "itertools.chain", "re.sub"} <= set(names)


def test_every_answer_is_in_the_corpus_and_among_the_candidates() -> None:
    """The questions' answers exist on this Python, and the first stage finds one of each question's at least."""
    documents = corpus()
    names = {document.id for document in documents}
    for question in questions():
        assert set(question.answers) <= names, question.id
        found = first_stage(question.text, documents)
        assert len(found) == 1500 and len({c.id for c in found}) == 1500
        assert set(question.answers) & {c.id for c in found}, question.id


def test_questions_are_about_thirty_and_distinct() -> None:
    """Ids and texts are unique."""
    asked = questions()
    assert len(asked) >= 30
    assert len({q.id for q in asked}) == len({q.text for q in asked}) == len(asked)


def test_the_first_stage_counts_shared_words() -> None:
    """Its score is the number of distinct words shared, falling, ties in the corpus's order."""
    found = first_stage("copy a directory tree", corpus())
    scores = [c.score or 0.0 for c in found]
    assert scores == sorted(scores, reverse=True) and scores[0] == 4.0
    best = [c.id or "" for c in found if c.score == 4.0]
    assert best == sorted(best) and "shutil.copytree" in best


def test_reranking_by_relevance_beats_the_first_stage() -> None:
    """MRR@10 of the emulator's relevance is clearly above that of the first stage: what the demo shows."""
    documents, before, after = corpus(), [], []
    for question in questions():
        found = first_stage(question.text, documents)
        order = np.argsort(-relevances(question.text, [str(c.text) for c in found]))
        before.append(reciprocal_rank([c.id or "" for c in found], question.answers))
        after.append(reciprocal_rank([found[i].id or "" for i in order], question.answers))
    assert np.mean(after) > np.mean(before) + 0.1


def test_the_files_hold_questions_candidates_and_judgements(tmp_path: Path) -> None:
    """One line a question with its 1,500 candidates, and TREC qrels; written twice they are the same."""
    write_demo(tmp_path / "one")
    write_demo(tmp_path / "two")
    for name in ("candidates.jsonl", "qrels.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "one" / "candidates.jsonl").read_text().splitlines()]
    assert [row["query_id"] for row in rows] == [q.id for q in questions()]
    assert all(
        len(row["candidates"]) == 1500 and set(row["candidates"][0]) == {"id", "text", "score"}
        for row in rows
    )
    judged = [line.split() for line in (tmp_path / "one" / "qrels.txt").read_text().splitlines()]
    assert {(q, d) for q, _, d, _ in judged} == {(q.id, a) for q in questions() for a in q.answers}
