"""Lists of images as data sets come with them: which column is the path and which the label is found out, or refused, never guessed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dtvit_deploy.calibration.class_map import read_class_map
from dtvit_deploy.calibration.images import ImageSet, open_images, sample
from dtvit_deploy.calibration.listing import BOXES_UNUSED
from dtvit_deploy.errors import InputError

NAMES = ("cat", "dog", "emu")


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def listed(path: Path, text: str, **options: Any) -> dict[str, int | None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return by_name(open_images(path, **options))


def by_name(found: ImageSet) -> dict[str, int | None]:
    return {image.path.name: image.label for image in found.images}


LISTS = {
    "a blank between": ("val.txt", "a.png 2\nb.png 0\n"),
    "blanks": ("val.txt", "a.png    2\nb.png 0\n"),
    "a tab": ("val.txt", "a.png\t2\nb.png\t0\n"),
    "the label first": ("val.txt", "2 a.png\n0 b.png\n"),
    "names": ("val.txt", "a.png emu\nb.png cat\n"),
    "commas": ("val.txt", "a.png,emu\nb.png,cat\n"),
    "a table": ("val.csv", "a.png,2\nb.png,0\n"),
    "a header": ("val.csv", "path,label\na.png,emu\nb.png,cat\n"),
    "the other order": ("val.csv", "class,image\n2,a.png\n0,b.png\n"),
    "quotes": ("val.csv", '"image", "class"\n"a.png", "emu"\n"b.png", "cat"\n'),
    "semicolons": ("val.csv", "file;class\na.png;emu\nb.png;cat\n"),
    "tabs": ("val.tsv", "filename\tlabel\na.png\temu\nb.png\tcat\n"),
    "a header that no other list has": ("val.csv", "path,animal\na.png,emu\nb.png,cat\n"),
    "more columns, of which the header names one": ("val.csv", "id,width,label,file_name\n1,30,emu,a.png\n2,40,cat,b.png\n"),
    "no suffix": ("val.csv", "ImageId,PredictionString\na,emu\nb,cat\n"),
    "numbers of a data frame": ("val.csv", "path,label\na.png,2.0\nb.png,0.0\n"),
    "the rows of a data frame, numbered": ("val.csv", ",path,kind\n0,a.png,emu\n1,b.png,cat\n"),
    "objects": ("val.json", '[{"path": "a.png", "label": "emu"}, {"path": "b.png", "label": "cat"}]'),
    "objects, one a line": ("val.jsonl", '{"file_name": "a.png", "label": 2}\n{"file_name": "b.png", "label": 0}\n'),
    "objects with a separator of lines in them, one a line": (
        "val.jsonl",
        '{"file_name": "a.png", "label": 2, "alt": "x\u2028y\x85z"}\n{"file_name": "b.png", "label": 0, "alt": ""}\n',
    ),
    "a byte order mark": ("val.csv", "\ufeffpath,label\na.png,emu\nb.png,cat\n"),
    "an empty line, and then tabs": ("val.csv", "\npath\tlabel\na.png\temu\nb.png\tcat\n"),
    "Windows' ends of lines": ("val.csv", "path,label\r\na.png,emu\r\nb.png,cat\r\n"),
}


@pytest.mark.parametrize("written", LISTS)
@pytest.mark.parametrize("where", ["", "val/", "images/", "../images/"], ids=str)
def test_every_usual_list_has_the_same_labels_wherever_its_images_lie(written: str, where: str, tmp_path: Path) -> None:
    name, text = LISTS[written]
    images(tmp_path / "set" / where, "a.png", "b.png")
    assert listed(tmp_path / "set" / name, text, classes=NAMES) == {"a.png": 2, "b.png": 0}


def test_paths_with_blanks_are_whole_where_they_are_files(tmp_path: Path) -> None:
    images(tmp_path, "my cat 1.png", "my dog 0.png")
    assert listed(tmp_path / "l.txt", "my cat 1.png\nmy dog 0.png\n") == {"my cat 1.png": None, "my dog 0.png": None}
    assert listed(tmp_path / "l.txt", "my cat 1.png 1\nmy dog 0.png 0\n") == {"my cat 1.png": 1, "my dog 0.png": 0}


def test_a_table_of_paths_alone_may_have_a_header(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    assert listed(tmp_path / "l.csv", "image\na.png\nb.png\n") == {"a.png": None, "b.png": None}


def test_numbers_are_labels_and_not_ranks(tmp_path: Path) -> None:
    """Of a thousand classes, a list of ten images has ten; the seventh of them is not class 7."""
    images(tmp_path, "a.png", "b.png")
    found = open_images(_written(tmp_path / "val.txt", "a.png 970\nb.png 3\n"))
    assert by_name(found) == {"a.png": 970, "b.png": 3}
    assert found.classes == ()


def test_labels_that_count_from_one_are_refused(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match=r"labels from 1 to 3, and the model's classes are 0 to 2") as caught:
        listed(tmp_path / "val.txt", "a.png 3\nb.png 1\n", classes=NAMES)
    assert "--class-map" in (caught.value.remedy or "")


def test_a_column_that_could_be_the_class_is_not_guessed(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match=r"which column of .* is the class is unclear: it has image, melanoma, nevus"):
        listed(tmp_path / "val.csv", "image,melanoma,nevus\na.png,1,0\nb.png,0,1\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("val.csv", "path,width\na.png,2\nb.png,0\n"),
        ("val.csv", "id,path\n1,a.png\n2,b.png\n"),
        ("val.tsv", "file_name\tscore\na.png\t0.5\nb.png\t1e-3\n"),
        ("val.json", '[{"path": "a.png", "score": 1}, {"path": "b.png", "score": 0}]'),
    ],
)
def test_a_column_of_numbers_whose_header_names_no_class_is_not_taken_for_one(name: str, text: str, tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match="is the class is unclear: it has"):
        listed(tmp_path / name, text)


@pytest.mark.parametrize("names", [("1.0", "2.0", "3.0"), ("0.0", "1.0", "2.0", "3.0")], ids=str)
def test_labels_that_look_like_numbers_are_names_where_the_network_has_them(names: tuple[str, ...], tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    text = "path,label\na.png,1.0\nb.png,2.0\n"
    expected = {"a.png": names.index("1.0"), "b.png": names.index("2.0")}
    assert listed(tmp_path / "val.csv", text, classes=names) == expected
    found = read_class_map(_written(tmp_path / "map.csv", "class,name\n" + "".join(f"{name},v{name}\n" for name in names)))
    assert listed(tmp_path / "val.csv", text, classes=names, class_map=found) == expected
    assert listed(tmp_path / "val.csv", text, class_map=found) == expected


def test_a_class_that_is_called_as_found_lines_begin_is_itself(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    text = "path,label\na.png,n00000001 old\nb.png,n00000001 new\n"
    assert listed(tmp_path / "val.csv", text, classes=("n00000001 new", "n00000001 old")) == {"a.png": 1, "b.png": 0}


@pytest.mark.parametrize(
    ("names", "classes", "alphabetical"), [("dog cat", (), True), ("1 0", (), False), ("dog cat", ("dog", "cat"), False)]
)
def test_words_that_nobody_orders_are_numbered_by_the_alphabet_and_that_is_known(
    names: str, classes: tuple[str, ...], alphabetical: bool, tmp_path: Path
) -> None:
    one, other = names.split()
    images(tmp_path, "a.png", "b.png")
    in_a_list = open_images(_written(tmp_path / "val.csv", f"path,label\na.png,{one}\nb.png,{other}\n"), classes=classes)
    images(tmp_path / "tree" / one, "a.png")
    images(tmp_path / "tree" / other, "b.png")
    for found in (in_a_list, open_images(tmp_path / "tree", classes=classes)):
        assert found.alphabetical is alphabetical
        assert sample(found, 1).alphabetical is alphabetical


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_coco_annotations_are_a_list_of_images_and_say_that_their_boxes_are_not_used(mark: str, tmp_path: Path) -> None:
    images(tmp_path / "val2017", "a.png", "b.png")
    coco = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    found = open_images(_written(tmp_path / "annotations" / "instances_val2017.json", mark + json.dumps(coco)))
    assert by_name(found) == {"a.png": None, "b.png": None}
    assert found.notes == (BOXES_UNUSED,)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.json", "[1, 2]", "lists no images"),
        ("l.json", "{", "cannot be read as JSON"),
        ("l.json", "[" * 100_000, "cannot be read as JSON"),
        ("l.json", '[{"path": ' + "[" * 200 + "]" * 200 + "}]", "nested more than 64 deep"),
        ("l.json", '{"annotations": []}', "lists no images"),
        ("l.csv", "", "lists no image"),
        ("l.csv", 'path,label\n"a.png,cat\nb.png,dog', "do not exist|lack a column"),
        ("l.csv", "path,label\na.png,cat\nb.png\n", "1 of the 2 rows of .* lack a column, the first is line 3"),
        ("l.csv", "path,label\na.png,cat\ngone.png,dog\n", r"1 of the 2 images .* gone\.png \(line 3\)|gone\.png \(line 3\)"),
        ("l.csv", "path,label\na.png,cat\nb.png,\n", "1 of the 2 lines of .* name no class, the first is line 3"),
    ],
)
def test_a_list_that_does_not_hold_is_refused(name: str, text: str, said: str, tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match=said) as caught:
        listed(tmp_path / name, text)
    assert caught.value.remedy


# What data call the classes

MAPS = {
    "names in order": ("map.txt", "cat\ndog\nemu\n"),
    "ids and names": ("map.txt", "n00000003 cat, house cat\nn00000002 dog\nn00000001 emu\n"),
    "ids in tabs": ("map.txt", "cat\tn00000003\ndog\tn00000002\nemu\tn00000001\n"),
    "numbers first": ("map.txt", "2 emu\n0 cat\n1 dog\n"),
    "numbers last": ("map.txt", "n00000001 2\nn00000003 0\nn00000002 1\n"),
    "numbers last, after a colon": ("map.txt", "emu: 2\ncat : 0\ndog :1\n"),
    "a dict of Python's by name": ("map.txt", "{'emu': 2,\n 'cat, house cat': 0,\n 'dog': 1}\n"),
    "a dict of Python's": ("map.txt", "{0: 'cat, house cat',\n 1: 'dog',\n 2: 'emu'}\n"),
    "a table": ("map.csv", "emu,2\ncat,0\ndog,1\n"),
    "a table with a header": ("map.csv", "index,wnid,name\n2,n00000001,emu\n0,n00000003,cat\n1,n00000002,dog\n"),
    "a table without numbers": ("map.csv", "wnid,name\nn00000003,cat\nn00000002,dog\nn00000001,emu\n"),
    "JSON by number": ("map.json", '{"0": "cat", "1": "dog", "2": "emu"}'),
    "JSON by name": ("map.json", '{"emu": 2, "dog": 1, "cat": 0}'),
    "JSON by number, of ids and names": ("map.json", '{"0": ["n00000003", "cat"], "1": ["n00000002", "dog"], "2": ["n00000001", "emu"]}'),
    "JSON by id": ("map.json", '{"n00000001": "emu", "n00000003": "cat", "n00000002": "dog"}'),
    "a list in JSON": ("map.json", '["cat", "dog", "emu"]'),
    "COCO's categories": ("map.json", '{"categories": [{"id": 9, "name": "emu"}, {"id": 4, "name": "cat"}, {"id": 5, "name": "dog"}]}'),
    "transformers": ("map.json", '{"id2label": {"0": "cat", "1": "dog", "2": "emu"}}'),
}
SPELT = {"emu": 2, "cat": 0, "n00000001": 2, "n00000003": 0, "house cat": 0}


OWN = ("COCO's categories", "JSON by id")
"""Their numbers, or their order, are the data set's own: only names make them the network's."""


@pytest.mark.parametrize(("written", "classes"), [(one, NAMES) for one in MAPS] + [(one, ()) for one in MAPS if one not in OWN])
def test_a_map_in_any_usual_form_gives_the_labels_of_all_that_it_names(written: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    name, text = MAPS[written]
    found = read_class_map(_written(tmp_path / name, text))
    for spelt, label in SPELT.items():
        if spelt in text:
            assert found.labels([spelt], classes, tmp_path) == {spelt: label}


def test_a_map_serves_class_folders_and_lists(tmp_path: Path) -> None:
    found = read_class_map(_written(tmp_path / "map.txt", MAPS["ids and names"][1]))
    images(tmp_path / "val", "n00000001/a.png", "n00000003/b.png", "n00000003/c.png")
    assert by_name(open_images(tmp_path / "val", classes=NAMES, class_map=found)) == {"a.png": 2, "b.png": 0, "c.png": 0}
    listing = _written(tmp_path / "val" / "l.txt", "n00000001/a.png n00000001\nn00000003/b.png n00000003\n")
    assert by_name(open_images(listing, classes=NAMES, class_map=found)) == {"a.png": 2, "b.png": 0}


def test_numbers_of_the_data_set_are_names_where_the_network_names_its_classes(tmp_path: Path) -> None:
    """ImageNet's development kit counts from 1, in an order of its own."""
    found = read_class_map(_written(tmp_path / "map.csv", "id,wnid,name\n1,n00000001,emu\n2,n00000003,cat\n3,n00000002,dog\n"))
    assert found.labels(["1", "2", "3"], NAMES, tmp_path) == {"1": 2, "2": 0, "3": 1}


def test_a_part_of_a_name_means_a_class_only_where_nothing_has_that_name(tmp_path: Path) -> None:
    found = read_class_map(_written(tmp_path / "map.txt", "0 missile\n1 projectile, missile\n2 tench, Tinca tinca\n"))
    used = ["missile", "projectile", "projectile, missile", "Tinca tinca"]
    assert found.labels(used, (), tmp_path) == {"missile": 0, "projectile": 1, "projectile, missile": 1, "Tinca tinca": 2}
    assert found.labels(["1", "2"], ("tench", "projectile", "missile"), tmp_path) == {"1": 1, "2": 0}


@pytest.mark.parametrize(
    "text",
    [
        "n04008634 projectile, missile\nn03773504 missile\nn02084071 dog\n",
        "n04008634 projectile, missile\nn03773504 rocket, missile\nn02084071 dog\n",
        "n04008634\tprojectile, missile\nn03773504\tmissile, weapon\nn02084071\tdog\n",
    ],
)
def test_a_part_of_a_name_that_another_class_has_too_makes_nothing_that_class(text: str, tmp_path: Path) -> None:
    found = read_class_map(_written(tmp_path / "map.txt", text))
    classes = ("missile", "dog")
    assert found.labels(["n02084071"], classes, tmp_path) == {"n02084071": 1}
    with pytest.raises(InputError, match="does not map to a class of the network: n04008634"):
        found.labels(["n04008634", "n02084071"], classes, tmp_path)
    if "03773504 missile" in text:
        assert found.labels(["n03773504"], classes, tmp_path) == {"n03773504": 0}


def test_a_class_that_is_in_the_map_twice_is_the_same_class(tmp_path: Path) -> None:
    found = read_class_map(_written(tmp_path / "map.txt", "n1, projectile\nn1, projectile\ndog\n"))
    assert found.labels(["n1", "dog"], ("projectile", "dog"), tmp_path) == {"n1": 0, "dog": 1}


@pytest.mark.parametrize(
    "line", ["x" + " " * 20_000 + "y", "1" + " " * 20_000 + "y", ", " * 20_000 + "y", "1" * 20_000 + "y", "a, 1" * 10_000 + "y"]
)
def test_no_line_of_a_map_takes_longer_than_its_length(line: str, tmp_path: Path) -> None:
    path = _written(tmp_path / "map.txt", f"{line}\n")
    begun = time.process_time()
    read_class_map(path)
    assert time.process_time() - begun < 0.5


def test_several_classes_of_the_data_may_be_one_of_the_network(tmp_path: Path) -> None:
    found = read_class_map(_written(tmp_path / "map.json", '{"tabby": 0, "siamese": 0, "poodle": 1}'))
    assert found.labels(["tabby", "siamese", "poodle"], (), tmp_path) == {"tabby": 0, "siamese": 0, "poodle": 1}


@pytest.mark.parametrize(
    ("text", "used", "classes", "said"),
    [
        ("cat\ndog\n", ["lion"], (), "does not map to a class of the network: lion"),
        ("crane\nemu\ncrane\n", ["crane"], (), "one name to several classes: crane"),
        ("a\nb\n", ["a"], NAMES, "2 classes without numbers, and the network 3"),
        ("1 a\n2 b\n3 c\n", ["a"], NAMES, "from 1 to 3, and those of the network are 0 to 2"),
        ("", ["a"], (), "holds no class"),
    ],
)
def test_a_map_that_leaves_something_open_is_refused(
    text: str, used: list[str], classes: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_class_map(_written(tmp_path / "map.txt", text)).labels(used, classes, tmp_path / "val")
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.txt"])
@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"], ids=repr)
def test_a_map_without_any_text_holds_no_class(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no class"):
        read_class_map(_written(tmp_path / name, text))


@pytest.mark.parametrize(
    ("name", "text"), [("m.json", "{"), ("m.json", "3"), ("m.json", '{"a": {"b": 1}}'), ("m.csv", "a,b\nc\n"), ("m.json", "[[" * 60_000)]
)
def test_what_is_no_map_is_refused(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no class map"):
        read_class_map(_written(tmp_path / name, text))
    with pytest.raises(InputError, match="there is no class map"):
        read_class_map(tmp_path / "absent.txt")


# What lies among images

LITTER = [
    "__MACOSX/cat/._a.png",
    "cat/Thumbs.db",
    "Thumbs.db",
    ".DS_Store",
    "cat/.DS_Store",
    "cat/._a.png",
    "desktop.ini",
    "cat/@eaDir/a.png/x.jpg",
]
LITTER += ["$RECYCLE.BIN/x.png", "System Volume Information/y.png", "cat/.ipynb_checkpoints/a.png"]


def test_what_systems_leave_among_images_is_neither_an_image_nor_a_class_nor_worth_a_word(tmp_path: Path) -> None:
    images(tmp_path, "cat/a.png", "dog/b.png", *LITTER)
    found = open_images(tmp_path)
    assert by_name(found) == {"a.png": 0, "b.png": 1}
    assert found.notes == ()


def test_what_is_skipped_is_counted_by_kind_in_one_line(tmp_path: Path) -> None:
    images(tmp_path, "cat/a.png", "cat/1.heic", "dog/2.HEIC", "dog/b.png", "dog/c.avif", "cat/LICENSE", "read.me")
    (note,) = open_images(tmp_path).notes
    assert note == "5 files were skipped, which are no image of a kind that can be read: .heic (2), .avif (1), .me (1), no suffix (1)"


def test_a_class_whose_images_cannot_be_read_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    images(tmp_path, "cat/a.png", "dog/1.heic")
    with pytest.raises(InputError, match=r"folders without any image .*: dog; .*\.heic \(1\)"):
        open_images(tmp_path)


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
