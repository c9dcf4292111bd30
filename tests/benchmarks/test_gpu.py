import pytest

from benchmarks import floors, gpu, problems


def test_floor_of_products_is_that_of_their_operations(capsys):
    work = floors.designs(256, 1024, 32, 5000)["products"]
    assert work.operations == pytest.approx(2 * 5000 * 256 * 1024 * 32, rel=0.1)
    operations, _ = floors.times_ms(work, floors.RATES["H100"])
    assert operations == pytest.approx(1.25, rel=0.1)
    floors.floors_table(gpu.FULL)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 3 * len(problems.GPU_SIZES)
    assert sum("(least)" in line for line in lines) == len(problems.GPU_SIZES)


def test_tables_that_would_end_too_late_are_named(monkeypatch, capsys):
    made = []
    tables = {"first": lambda: made.append(1), "second": lambda: made.append(2)}
    monkeypatch.setattr(gpu, "tables", lambda sizes: tables)
    monkeypatch.setattr("sys.argv", ["gpu", "--minutes=1"])
    gpu.main()
    assert (
        made == [] and "Left out, as the time was over: first, second." in capsys.readouterr().out
    )
    monkeypatch.setattr("sys.argv", ["gpu"])
    gpu.main()
    assert made == [1, 2] and "All tables." in capsys.readouterr().out
