"""The record of a run."""

import csv
import math

from PIL import Image

from lumiere_core.training.log import Log


def filled(folder, steps=4):
    log = Log(folder / "run")
    for step in range(1, steps + 1):
        log.append({"step": step, "loss": 1 / step})
    return log


def test_records_come_back_in_order(tmp_path):
    assert Log(tmp_path / "none").read() == []
    assert filled(tmp_path).read() == [{"step": i, "loss": 1 / i} for i in (1, 2, 3, 4)]


def test_a_line_cut_short_is_left_out(tmp_path):
    log = filled(tmp_path)
    text = log.path.read_text()
    for cut in range(1, 20):
        log.path.write_text(text[:-cut])
        assert [record["step"] for record in log.read()] in ([1, 2, 3], [1, 2, 3, 4])


def test_rewind_forgets_later_records_and_half_lines(tmp_path):
    log = filled(tmp_path)
    with log.path.open("a") as file:
        file.write('{"step": 5, "lo')
    log.rewind(2)
    assert [record["step"] for record in log.read()] == [1, 2]
    log.append({"step": 3, "loss": 9.0})
    assert [record["step"] for record in log.read()] == [1, 2, 3]
    assert [path.name for path in log.folder.iterdir()] == ["log.jsonl"]


def test_lines_that_are_no_records_are_left_out(tmp_path):
    log = filled(tmp_path)
    for line in ('{"loss": 1}', '{"step": "2", "loss": 1}', '{"step": 2}', '{"step": 3, "loss": "low"}', "7"):
        with log.path.open("a") as file:
            file.write(f"{line}\n")
    log.rewind(3)
    log.write_tables("t")
    assert [record["step"] for record in log.read()] == [1, 2, 3]


def test_tables(tmp_path):
    log = filled(tmp_path, steps=1)
    log.write_tables("t")
    assert not (log.folder / "log.csv").exists()  # one point makes no curve
    log.append({"step": 2, "loss": math.inf})
    log.append({"step": 3, "loss": 0.5})
    log.write_tables("t")
    with (log.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"] and rows[2]["loss"] == "0.5"
    with Image.open(log.folder / "loss.png") as picture:
        assert picture.size == (800, 420)
        assert (200, 60, 40) in {colour for _, colour in picture.getcolors(1 << 20)}  # the curve


def test_tensorboard_gets_the_same_records_where_it_is_installed(tmp_path, monkeypatch):
    import sys
    import types

    from lumiere_core.training.log import Board

    written = []

    class Writer:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    record = {"step": 3, "loss": 0.5, "gradient_norm": 1.0, "learning_rate": 1e-3, "seconds": 2.0}
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    with Board(tmp_path) as board:
        board.write(record)
    assert written == [
        str(tmp_path / "tensorboard"),
        ("loss", 0.5, 3),
        ("gradient_norm", 1.0, 3),
        ("learning_rate", 1e-3, 3),
        "closed",
    ]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # not installed
    with Board(tmp_path) as board:
        board.write(record)
    assert len(written) == 5
