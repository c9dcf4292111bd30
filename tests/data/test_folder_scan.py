"""Which files of a folder are its images, and in which split each is."""

import itertools
import json
import os
import unicodedata

import pytest
from PIL import Image

from laser_jax.data import EmptySplit, open_source, open_split, prepare
from laser_jax.data.folder import split_of
from laser_jax.data.scan import scan
from laser_jax.training.workdir import check_same_run, read_config

SPLITS = ("train", "validation", "test")
colours = itertools.count()


def add_image(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (next(colours) % 256, 0, 0)).save(path, "png")


def members(root, **options):
    """Returns split -> names, for the splits that have images."""
    found = {}
    for split in SPLITS:
        try:
            source = open_source(f"folder:{root}", split=split, image_size=2, **options)
        except ValueError as error:
            assert "too few images" in str(error)
        else:
            found[split] = [path.relative_to(root).as_posix() for path in source.records]
    return found


def lines_of(monkeypatch, level="warning"):
    lines = []
    monkeypatch.setattr(
        f"laser_jax.data.folder.log.{level}", lambda text, *values: lines.append(text % values)
    )
    return lines


def named_for(split, prefix="", count=1):
    names = (f"{prefix}image_{number}.png" for number in range(10_000))
    return list(itertools.islice((name for name in names if split_of(name) == split), count))


@pytest.mark.parametrize("validation", ["val", "validation", "valid", "VAL"])
@pytest.mark.parametrize("above", ["", "archive/"])
def test_folders_named_for_splits_are_the_splits(tmp_path, validation, above):
    expected = {
        split: [f"{above}{folder}/cats/{number}.png" for number in range(20)]
        for split, folder in zip(SPLITS, ("train", validation, "test"), strict=True)
    }
    add_image(tmp_path, *itertools.chain.from_iterable(expected.values()))
    found = members(tmp_path)
    assert {split: sorted(names) for split, names in found.items()} == {
        split: sorted(names) for split, names in expected.items()
    }


def test_split_without_a_folder_is_empty_if_other_splits_have_folders(tmp_path):
    add_image(tmp_path, *(f"{split}/{i}.png" for split in ("train", "val") for i in range(40)))
    found = members(tmp_path)
    assert {split: len(names) for split, names in found.items()} == {"train": 40, "validation": 40}
    with pytest.raises(ValueError, match=r"too few images for test .*name a folder 'test'"):
        open_source(f"folder:{tmp_path}", split="test", image_size=2)


def test_the_topmost_split_folder_decides_and_files_outside_are_hashed(tmp_path):
    outside = named_for("train", "other/") + named_for("test", "other/")
    add_image(tmp_path, "train/test/a.png", "val/b.png", *outside)
    found = members(tmp_path)
    assert found == {
        "train": [outside[0], "train/test/a.png"],
        "validation": ["val/b.png"],
        "test": [outside[1]],
    }


def test_a_class_named_train_is_hashed_like_the_others(tmp_path):
    names = [name for split in SPLITS for name in named_for(split, "train/")]
    add_image(tmp_path, *names)
    assert members(tmp_path) == {split: [name] for split, name in zip(SPLITS, names, strict=True)}


@pytest.mark.parametrize("present", [(), ("validation",), ("test",)])
def test_hash_leaves_no_split_of_20_files_empty(present, tmp_path):
    names = [*named_for("train", "a/", 38), *(n for s in present for n in named_for(s, "b/", 2))]
    add_image(tmp_path, *names[:1])
    assert set(members(tmp_path)) == {"train"}  # too few
    add_image(tmp_path, *names[1:])
    by_hash, found = members(tmp_path, split_rule=2), members(tmp_path)
    assert set(by_hash) == {"train", *present} and set(found) == set(SPLITS)
    assert all(found[split] == by_hash[split] for split in present)
    assert sorted(name for split in found.values() for name in split) == sorted(names)
    lent = set(by_hash["train"]) - set(found["train"])
    assert len(lent) == (2 - len(present)) * (len(names) // 20)
    add_image(tmp_path, *(n for s in SPLITS[1:] for n in named_for(s, "c/")))
    assert members(tmp_path) == members(tmp_path, split_rule=2)  # the hash suffices


def test_prepare_needs_no_test_split_and_says_that_there_is_none(tmp_path, monkeypatch):
    add_image(tmp_path, "train/a.png", "val/b.png")
    lines = lines_of(monkeypatch)
    prepare(f"folder:{tmp_path}", image_size=2)
    (line,) = lines
    assert "too few images for test" in line and "--config.eval.split=validation" in line
    (tmp_path / "val/b.png").rename(tmp_path / "test.png")
    (tmp_path / "test").mkdir()
    (tmp_path / "test.png").rename(tmp_path / "test/b.png")
    with pytest.raises(EmptySplit, match="too few images for validation.*folder 'validation'"):
        prepare(f"folder:{tmp_path}", image_size=2)


def test_split_rule_1_is_unchanged(tmp_path):
    """What commit c548257 read: hash alone, hidden folders too, no links to folders."""
    (held_out,) = named_for("test", "train/")
    (hidden,) = named_for("validation", ".trash/")
    (in_val,) = named_for("train", "val/")
    add_image(tmp_path, held_out, hidden, in_val, "other.jfif")
    (tmp_path / "link").symlink_to(tmp_path / "val")
    assert members(tmp_path, split_rule=1) == {
        "train": [in_val],
        "validation": [hidden],
        "test": [held_out],
    }


def test_a_run_keeps_the_split_rule_that_it_began_with(tmp_path, tiny_config):
    """A config stored before there was `data.split_rule`, then the same command again."""
    (held_out,) = named_for("test", "train/")
    add_image(tmp_path / "set", held_out, "val/a.png")
    tiny_config.data.name = f"folder:{tmp_path / 'set'}"
    stored = tiny_config.to_dict()
    del stored["data"]["split_rule"], stored["data"]["channels"]
    stored["adversarial"]["start_step"] -= 1  # it was the last step without the term then
    (tmp_path / "config.json").write_text(json.dumps(stored))
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    assert len(open_split(tiny_config.data, "train")) == 1
    for config in (read_config(tmp_path), tiny_config):
        check_same_run(tmp_path, config)
        assert config.data.split_rule == 1
        (path,) = open_split(config.data, "test").records
        assert path.relative_to(tmp_path / "set").as_posix() == held_out


def test_names_that_differ_in_unicode_form_alone_are_in_one_split_and_order(tmp_path):
    names = [f"café {number}/über {number}.png" for number in range(60)]
    found = []
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        add_image(root, *(unicodedata.normalize(form, name) for name in names))
        found.append(members(root))
        assert all(unicodedata.is_normalized(form, n) for v in found[-1].values() for n in v)
    nfc, nfd = (
        {split: [unicodedata.normalize("NFC", n) for n in v] for split, v in f.items()}
        for f in found
    )
    assert nfc == nfd and len(nfc) > 1


def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    name = os.fsdecode(b"gr\xfcn.png")
    add_image(tmp_path, name)
    assert [names for names in members(tmp_path).values()] == [[name]]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "jpe", "jfif", "JFIF", "PNG", "webp"])
def test_every_usual_suffix_is_read_in_either_case(tmp_path, suffix):
    add_image(tmp_path, f"a.{suffix}")
    assert list(scan(tmp_path).files) == [f"a.{suffix}"]


def test_hidden_entries_and_system_folders_are_left_out_and_counted(tmp_path):
    add_image(
        tmp_path,
        "a.png",
        "._a.png",
        ".ipynb_checkpoints/a-checkpoint.png",
        "cats/.Trash-0/files/a.png",
        "__MACOSX/cats/._a.png",
        "@eaDir/a.png",
    )
    (tmp_path / "notes.txt").touch()
    found = scan(tmp_path)
    assert list(found.files) == ["a.png"]
    assert found.ignored == {"hidden entries": 5, "files of other types": 1}


def test_links_to_files_and_class_folders_are_followed(tmp_path):
    add_image(tmp_path / "store", "cats/a.png", "cats/deep/b.png", "c.png")
    root = tmp_path / "set"
    add_image(root, "dogs/d.png")
    (root / "cats").symlink_to(tmp_path / "store" / "cats")
    (root / "c.png").symlink_to("../store/c.png")
    found = scan(root)
    assert list(found.files) == ["c.png", "cats/a.png", "cats/deep/b.png", "dogs/d.png"]
    assert not found.problems and not +found.ignored


def test_links_make_no_copies_and_no_loops(tmp_path):
    root = tmp_path / "set"
    add_image(root, "a/x.png", "b/y.png")
    add_image(tmp_path, "outside/z.png")
    for link, target in {
        "a/loop": root / "a",
        "b/loop": root / "a",
        "c": root / "b",
        "x again.png": root / "a" / "x.png",
        "one": tmp_path / "outside",
        "two": tmp_path / "outside",
        "whole": root,
        "above": tmp_path,
    }.items():
        (root / link).symlink_to(target)
    found = scan(root)
    assert list(found.files) == ["a/x.png", "b/y.png", "one/z.png"]
    assert sorted(found.problems) == [
        f"link {root / name}: leads to a folder that contains it" for name in ("above", "whole")
    ]


def test_hard_links_count_as_separate_files(tmp_path):
    add_image(tmp_path, "a.png")
    os.link(tmp_path / "a.png", tmp_path / "b.png")
    assert list(scan(tmp_path).files) == ["a.png", "b.png"]


def test_links_in_split_folders_take_precedence_over_their_targets(tmp_path):
    add_image(tmp_path, "all/a.png", "all/b.png", "all/c/d.png")
    for name in ("train/a.png", "val/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).symlink_to(tmp_path / "all" / name[-5:])
    (tmp_path / "test").symlink_to(tmp_path / "all" / "c")
    assert members(tmp_path) == {
        "train": ["train/a.png"],
        "validation": ["val/b.png"],
        "test": ["test/d.png"],
    }


def test_dangling_links_are_named_and_counted(tmp_path, monkeypatch):
    warnings = lines_of(monkeypatch)
    add_image(tmp_path, *named_for("train"))
    links = [tmp_path / "gone.png", tmp_path / "class"]
    for link in links:
        link.symlink_to(tmp_path / "nowhere")
    source = open_source(f"folder:{tmp_path}", split="train", image_size=2)
    for link in links:
        assert warnings.count(f"skipping link {link}: leads to no file or folder") == 1
    assert "2 folders or links skipped" in source.description


def test_folders_that_cannot_be_read_are_named_and_counted(tmp_path, monkeypatch):
    add_image(tmp_path, "locked/a.png", *named_for("train"))
    real, warnings = os.scandir, lines_of(monkeypatch)

    def scandir(path):  # the tests may run as root, who can read everything
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = open_source(f"folder:{tmp_path}", split="train", image_size=2)
    assert warnings == [f"skipping folder {tmp_path}/locked: Permission denied"]
    assert len(source) == 1 and "1 folders or links skipped" in source.description


def test_order_does_not_depend_on_the_directory_listing(tmp_path, monkeypatch):
    add_image(tmp_path, *(f"{folder}/{i}.png" for folder in "ab" for i in range(5)))
    for link in "cd":
        (tmp_path / link).symlink_to(tmp_path.parent / "linked")
    add_image(tmp_path.parent / "linked", "x.png")
    first, real = list(scan(tmp_path).files), os.scandir

    class Reversed(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def scandir(path):
        with real(path) as entries:
            return Reversed(sorted(entries, key=lambda e: e.name, reverse=True))

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(scan(tmp_path).files) == first
