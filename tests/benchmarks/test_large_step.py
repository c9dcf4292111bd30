from benchmarks import large_step

SMALL = (
    "--config.data.batch_size=4", "--config.data.image_size=16", "--config.model.num_hiddens=8",
    "--config.model.num_embeddings=16", "--config.adversarial.weight=0.1",
)  # fmt: skip


def test_a_row_without_and_one_with_the_discriminator(capsys):
    large_step.main(["--config=configs/vqvae_photos.py", "--steps=1", *SMALL])
    title, *_, first, second = capsys.readouterr().out.strip().splitlines()
    assert "16x16, batch 4" in title
    cells = [[x.strip() for x in row.split("|")[1:-1]] for row in (first, second)]
    assert [row[0] for row in cells] == ["no", "yes"]
    assert all(float(x) >= 0 for row in cells for x in row[1:])
