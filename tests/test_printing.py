"""Results go to standard output, everything else to standard error."""

import json

from onnxq import printing
from onnxq.report import Decision


def test_a_table_has_rows_or_is_not_printed(capsys):
    printing.print_table(["a", "b"], [])
    assert capsys.readouterr() == ("", "")
    printing.print_table(["a", "b"], [["[1]", "two"]])
    assert capsys.readouterr().out.split() == ["a", "b", "[1]", "two"]


def test_what_is_left_in_float_is_what_could_have_been_quantized(capsys):
    reasons = {
        "too small": [Decision("m", "MatMul", "float", ""), Decision("c", "Conv", "float", "")],
        "no weights": [Decision("a", "Add", "float", "")],
    }
    printing.print_left_in_float(reasons)
    said = capsys.readouterr().out
    assert said.splitlines()[1].split() == ["Conv,", "MatMul", "2", "too", "small"]
    assert "no weights" not in said


def test_json_and_what_is_said_beside_it(capsys):
    printing.print_json({"a": [1]})
    printing.say("note")
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": [1]}
    assert said.err == "note\n"
