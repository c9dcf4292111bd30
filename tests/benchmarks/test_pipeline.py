from benchmarks import pipeline
from laser_jax.data import open_source


def test_table_has_a_line_for_each_source_and_number_of_threads(tmp_path, capsys):
    pipeline.write_folder(tmp_path / "images", side=16, count=24)
    source = open_source(f"folder:{tmp_path / 'images'}", split="train", image_size=16)
    pipeline.pipeline_table({"folder": source}, [1, 2], batch_size=4, num_batches=3)
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if "threads" in line]
    assert [line[1].strip() for line in lines] == ["folder, threads 1", "folder, threads 2"]
    assert all(float(ms) > 0 and float(speed) > 0 for _, _, ms, speed, _ in lines)
