"""The demo's files."""

from pathlib import Path

import orjson

from batchrank.demo import corpus
from batchrank.first_stage import first_stage
from batchrank.questions import questions


def write_demo(folder: Path) -> None:
    """Write ``candidates.jsonl`` and ``qrels.txt`` (TREC) into a folder, which is made if need be.

    A line of candidates is one question with its first stage's 1,500 documents, best first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    documents = corpus()
    known = {document.id for document in documents}
    with (folder / "candidates.jsonl").open("wb") as lines, (folder / "qrels.txt").open("w") as qrels:
        for question in questions():
            found = first_stage(question.text, documents)
            candidates = [{"id": c.id, "text": c.text, "score": c.score} for c in found]
            row = {"query_id": question.id, "query": question.text, "candidates": candidates}
            lines.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            qrels.writelines(f"{question.id} 0 {name} 1\n" for name in question.answers if name in known)
