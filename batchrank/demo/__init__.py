"""The demo's data: the standard library's docstrings, questions about them, and a first stage that finds candidates."""

from batchrank.demo.corpus import corpus
from batchrank.demo.data import write_demo
from batchrank.demo.first_stage import first_stage
from batchrank.demo.questions import Question, questions

__all__ = ["Question", "corpus", "first_stage", "questions", "write_demo"]
