"""The review in FiftyOne: what is loaded, shown and written back; what needs no database."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from review_pictures import AT, HARP, LUTE, found, picture

from musicon.datasets.records import Box, ImageRecord, Manifest
from musicon.detect.colours import class_colour, hex_colour
from musicon.detect.outputs import ATTRIBUTE_SCORES
from musicon.detect.review import fiftyone_app as app
from musicon.detect.review import session
from musicon.detect.review.corrections import CorrectionsError
from musicon.detect.review.heatmaps import HeatmapError
from musicon.detect.review.mongod import find_mongod
from musicon.detect.review.previews import make_previews
from musicon.detect.summary import load_review

TOOL = Path(__file__).resolve().parents[2] / "tools" / "review.py"


# --- with FiftyOne's database ------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A MongoDB of our own: FiftyOne would attach to any that this user has running."""
    mongod = find_mongod()
    if mongod is None or not mongod.is_file():
        pytest.skip("FiftyOne has no database here (make env installs one)")
    folder = tmp_path_factory.mktemp("mongo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [str(mongod), "--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1",
         "--nounixsocket", "--quiet", "--wiredTigerCacheSizeGB", "0.25",
         "--setParameter", "enableTestCommands=1"],  # to make it fail when a test wants it to
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = os.environ.get("FIFTYONE_DATABASE_URI")
    uri = os.environ["FIFTYONE_DATABASE_URI"] = f"mongodb://127.0.0.1:{port}"
    try:
        _wait_for(port)
        import fiftyone
        import fiftyone.core.odm.database as odm

        own = fiftyone.config.database_uri
        odm._disconnect()
        fiftyone.config.database_uri = uri
        yield
        odm._disconnect()
        fiftyone.config.database_uri = own
    finally:
        if before is None:
            del os.environ["FIFTYONE_DATABASE_URI"]
        else:
            os.environ["FIFTYONE_DATABASE_URI"] = before
        server.terminate()
        server.wait(20)


def _wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("mongod did not start")


@pytest.fixture
def gallery(tmp_path: Path) -> tuple[Manifest, Manifest]:
    """Six pictures with ground truth and predictions: right, misnamed, missed, false, none."""
    names = ["right ü", "misnamed", "missed", "false", "none", "unboxed"]
    for name in names:
        picture(tmp_path / "art" / f"{name}.png")
    boxes: list[tuple[Box, ...]] = [(Box(AT, 1),), (Box(AT, 1),), (Box(AT, 2),), (), (), ()]
    truth = Manifest(tmp_path / "art", (LUTE, HARP), tuple(
        ImageRecord(i, f"{name}.png", 200, 100, boxes[i - 1],
                    labels=tuple(box.label for box in boxes[i - 1]), split="test",
                    domain="cytomine", attributes={"painter.name": "Gérard $"}, rights="CC0")
        for i, name in enumerate(names, start=1)))
    truth = replace(truth, images=(*truth.images[:5], replace(truth.images[5], labels=None)))
    guesses = [(found(AT, 1, 0.9),), (found((11, 21, 60, 70), 2, 0.4),), (),
               (found((100, 10, 150, 60), 2, 0.3),), (), (found(AT, 1, 0.8),)]
    predictions = Manifest(tmp_path / "res", (LUTE, HARP), tuple(
        ImageRecord(i, f"../art/{name}.png", 200, 100, guesses[i - 1], labels=None)
        for i, name in enumerate(names, start=1)))
    truth.write(tmp_path / "art")
    predictions.write(tmp_path / "res" / "detections.json")
    return truth, predictions


@pytest.mark.parametrize("refused", ["insert", "update", "createIndexes"])
def test_a_database_that_fails_midway_loses_no_results(
        gallery: tuple[Manifest, Manifest], database: None, refused: str) -> None:
    from pymongo import MongoClient

    results = gallery[1].root
    client: MongoClient[dict[str, Any]] = MongoClient(os.environ["FIFTYONE_DATABASE_URI"])
    with client:
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data={
            "failCommands": [refused], "errorCode": 14031, "closeConnection": False})
        try:
            said = load_review(results, f"midway-{refused}", quiet=True)
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")
    assert said.startswith("review:   not loaded (") and "the results are complete" in said
    assert f"python tools/review.py --predictions {results / 'detections.json'}" in said
    assert said.count("\n") == 0
    said = load_review(results, f"midway-{refused}", quiet=True)
    assert said.endswith(f"--name midway-{refused}") and "not loaded" not in said


def test_a_disk_that_fails_midway_loses_no_results(
        database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fiftyone

    (tmp_path / "taken").write_text("a file where previews should go")
    monkeypatch.setattr(fiftyone.config, "default_dataset_dir", str(tmp_path / "taken"))
    Image.new("RGB", (90, 80)).save(tmp_path / "scan.tif")  # which browsers don't show
    Manifest(tmp_path, (LUTE,), (ImageRecord(1, "scan.tif", 90, 80, (found(AT, 1, 0.9),)),)).write(
        tmp_path / "detections.json")
    said = load_review(tmp_path, "no-previews", quiet=True)
    assert said.startswith("review:   not loaded (") and str(tmp_path / "taken") in said
    assert f"python tools/review.py --predictions {tmp_path / 'detections.json'}" in said


def names_in(view: Any) -> set[str]:
    return {Path(path).stem for path in view.values("filepath")}


def test_review_of_ground_truth_and_predictions(
        database: None, gallery: tuple[Manifest, Manifest]) -> None:
    dataset = app.load_dataset("test-both", *gallery)
    views = {name: names_in(dataset.load_saved_view(name)) for name in dataset.list_saved_views()}
    assert views["missed"] == {"missed"} and views["false alarms"] == {"false"}
    assert views["label disagreements"] == {"misnamed"}
    assert views["no instrument"] == {"missed", "none"}
    assert views["uncertain"] == {"false"} and len(views["to review"]) == 6
    assert (dataset.sum("eval_tp"), dataset.sum("eval_fp"), dataset.sum("eval_fn")) == (1, 2, 2)
    sample = dataset.match({"split": "test"}).first()
    assert sample.rights == "CC0" and sample.attributes.painter_name == "Gérard $"
    label = sample.ground_truth.detections[0]
    assert (label.supercategory, label.mimo, label.hornbostel_sachs) == ("strings", "3459",
                                                                         "321.32")
    assert label.bounding_box == pytest.approx([0.05, 0.2, 0.25, 0.5])
    guess = sample.predictions.detections[0]
    assert (guess.sure_name, guess.level, guess.classifier_score) == ("plucked lutes", "family",
                                                                      0.5)
    assert dataset.count_values("predictions.detections.level") == {"family": 4}
    colours = dataset.app_config.color_scheme.fields[0]["valueColors"]
    assert {"value": "lute", "color": hex_colour(class_colour("lute"))} in colours
    assert dataset.active_label_schemas == ["corrections", "reviewed"]
    dataset.delete()


def test_corrections_survive_a_reload_and_come_back_out(
        database: None, gallery: tuple[Manifest, Manifest], tmp_path: Path) -> None:
    fo = app.connect()
    truth, predictions = gallery
    dataset = app.load_dataset("test-trip", predictions=predictions)
    by_name = {Path(s.filepath).stem: s for s in dataset.iter_samples()}
    moved = by_name["right ü"]
    moved.corrections.detections[0].bounding_box = [0.1, 0.2, 0.25, 0.5]
    drawn = by_name["missed"]
    drawn.corrections.detections.append(fo.Detection(label="harp", bounding_box=[0, 0, 0.5, 0.5]))
    emptied = by_name["false"]
    emptied.corrections.detections = []
    accepted = by_name["none"]
    accepted.reviewed = True
    tagged = by_name["unboxed"]
    tagged.predictions.detections[0].tags = ["accepted"]
    for sample in (moved, drawn, emptied, accepted, tagged):
        sample.save()

    again = app.load_dataset("test-trip", predictions=predictions)
    assert again.info["musicon"]["counts"] == {
        "images": 6, "added": 0, "updated": 6, "kept": 5, "removed": 0}
    fewer = replace(predictions, images=predictions.images[:1])
    assert len(app.load_dataset("test-trip", predictions=fewer)) == 5

    exported = session.export(tmp_path / "mended", "test-trip")
    manifest = Manifest.read(exported.file)
    boxes = {Path(r.file_name).stem: r.boxes for r in manifest.images}
    assert set(boxes) == {"right ü", "missed", "false", "none", "unboxed"}
    assert boxes["right ü"][0].xyxy == pytest.approx((20, 20, 70, 70))
    assert [(box.xyxy, box.label) for box in boxes["missed"]] == [((0, 0, 100, 50), 2)]
    assert boxes["false"] == boxes["none"] == ()
    assert boxes["unboxed"][0].xyxy == AT
    assert all(b.origin == "human" and b.score is None for bs in boxes.values() for b in bs)
    assert dict(exported.corrected.counts) == {"changed": 1, "added": 1, "removed": 1,
                                               "accepted": 1}
    app.load_dataset("test-trip", predictions=predictions, overwrite=True)
    fo.load_dataset("test-trip").name = "musicon-test-trip"
    assert app.open_dataset("test-trip").name == "musicon-test-trip"
    with pytest.raises(CorrectionsError, match="none of 6 images"):
        session.export(tmp_path / "none", "test-trip")
    fo.delete_dataset("musicon-test-trip")


def test_class_labelled_images_disagree_by_name(
        database: None, gallery: tuple[Manifest, Manifest]) -> None:
    truth, predictions = gallery
    labelled = replace(truth, images=tuple(
        replace(record, boxes=(), labels=(1,)) for record in truth.images))
    dataset = app.load_dataset("test-labels", labelled, predictions)
    view = dataset.load_saved_view("label disagreements")
    assert names_in(view) == {"misnamed", "false"}
    assert not dataset.has_saved_view("missed")
    dataset.delete()


def test_a_style_bank_is_grouped_by_content(
        database: None, gallery: tuple[Manifest, Manifest]) -> None:
    truth, _ = gallery
    bank = replace(truth, images=tuple(
        replace(record, attributes={"content": f"photos/{number // 2}.jpg", "style": f"c{number}"})
        for number, record in enumerate(truth.images)))
    dataset = app.load_dataset("test-bank", bank)
    view = dataset.load_saved_view("by content")
    assert len(view) == (len(dataset) + 1) // 2
    styles = view.get_dynamic_group("photos/0.jpg").values("attributes.style")
    assert sorted(styles) == ["c0", "c1"]
    app.load_dataset("test-bank", truth, overwrite=True)
    assert not dataset.has_saved_view("by content")
    dataset.delete()


def test_what_a_model_says_of_whole_works_is_a_field(
        database: None, gallery: tuple[Manifest, Manifest]) -> None:
    truth, predictions = gallery
    scores = {"movement": {"Rococo": 0.7, "Realism": 0.2}}
    guessed = replace(predictions, images=tuple(
        replace(record, attributes={"movement": answer}, extra={ATTRIBUTE_SCORES: scores})
        for record, answer in zip(predictions.images, ("Rococo", "uncertain", *["Rococo"] * 9),
                                  strict=False)))
    known = replace(truth, images=tuple(
        replace(record, attributes={"movement": "Realism"}) for record in truth.images))
    dataset = app.load_dataset("test-works", known, guessed)
    labels = dict(zip(*dataset.values(["filepath", "guessed_movement.label"]), strict=True))
    assert {labels[os.path.normpath(guessed.path(record))] for record in guessed.images} == {
        "Rococo", "uncertain"}
    assert set(dataset.exists("guessed_movement").values("guessed_movement.confidence")) == {0.7}
    assert dataset.values("attributes.movement").count("Realism") == len(truth.images)
    dataset.delete()


def test_heat_maps_are_fields_of_the_pictures_that_have_them(
        database: None, gallery: tuple[Manifest, Manifest], tmp_path: Path) -> None:
    root = gallery[1].root
    image = gallery[1].path(gallery[1].images[0])
    (tmp_path / "linked").symlink_to(image.parent)
    heat = tmp_path / "out" / "heat.png"
    heat.parent.mkdir()
    Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).save(heat)
    rows = [{"file": f"../linked/{image.name}", "heat": {"integrated-gradients": "heat.png"}},
            {"file": "gone.jpg", "heat": {"integrated-gradients": "heat.png"}}]
    index = heat.with_name("explanations.json")
    index.write_text(json.dumps({"images": rows}))
    loaded = session.load(None, root / "detections.json", "test-heat", heatmaps=heat.parent)
    assert loaded is not None and loaded.heat == (1, 2)
    assert "heat:     maps over 1 of the 2 pictures explained" in session.load_lines(loaded)
    groups = {group.name: group.paths for group in loaded.dataset.app_config.sidebar_groups}
    assert groups["heat maps"] == ["heat_integrated_gradients"]
    shown = {Path(sample.filepath).name: sample["heat_integrated_gradients"]
             for sample in loaded.dataset}
    assert {name for name, field in shown.items() if field is not None} == {image.name}
    assert shown[image.name].map_path == str(heat)
    assert shown[image.name].get_map().shape == (10, 20)

    # A review that is opened as it is takes them too; loading it anew keeps them.
    index.write_text(json.dumps({"images": [{**rows[0], "heat": {"gradcam": "heat.png"}}]}))
    again = session.load(None, None, "test-heat", heatmaps=heat.parent)
    assert again is not None and again.heat == (1, 1)
    kept = app.load_dataset("test-heat", predictions=gallery[1])
    assert kept.count("heat_gradcam") == kept.count("heat_integrated_gradients") == 1
    for text, sentence in (("{}", "make it anew"), ('{"images": []}', "lists no heat maps"),
                           (json.dumps({"images": rows[1:]}), "none of the 1 explained pictures")):
        index.write_text(text)
        with pytest.raises(HeatmapError, match=sentence):
            session.load(None, None, "test-heat", heatmaps=heat.parent)
    with pytest.raises(HeatmapError, match="tools/explain.py --images FOLDER"):
        session.load(None, None, "test-heat", heatmaps=root)
    kept.delete()


def test_foreign_dataset_and_unknown_name_are_refused(
        database: None, gallery: tuple[Manifest, Manifest]) -> None:
    fo = app.connect()
    fo.Dataset("test-foreign", persistent=True).add_sample(fo.Sample(filepath="/pictures/x.png"))
    with pytest.raises(app.ReviewError, match="another name with --name"):
        app.load_dataset("test-foreign", *gallery, overwrite=True)
    assert len(fo.load_dataset("test-foreign")) == 1
    with pytest.raises(app.ReviewError, match="no review named 'test-nix'"):
        app.open_dataset("test-nix")
    fo.delete_dataset("test-foreign")


def test_launch_refuses_a_port_that_is_taken(
        database: None, gallery: tuple[Manifest, Manifest]) -> None:
    dataset = app.load_dataset("test-port", *gallery)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(app.ReviewError, match="--port"):
            app.launch(dataset, taken.getsockname()[1], browser=False)
    with pytest.raises(app.ReviewError, match="ports go from 1 to 65535"):
        app.launch(dataset, 99_999, browser=False)
    dataset.delete()


# --- without one -------------------------------------------------------------------------------


def run_tool(*arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], float]:
    begun = time.monotonic()
    done = subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=60, check=False)
    return done, time.monotonic() - begun


def test_no_database_is_one_sentence_and_soon(gallery: tuple[Manifest, Manifest]) -> None:
    file = str(gallery[1].root / "detections.json")
    done, seconds = run_tool("--predictions", file, "--load-only",
                             FIFTYONE_DATABASE_URI="mongodb://user:secret@127.0.0.1:1")
    assert done.returncode == 2 and seconds < 25
    assert done.stderr.startswith("error: the MongoDB server that FIFTYONE_DATABASE_URI names")
    assert done.stderr.count("\n") == 1 and "secret" not in done.stderr


def test_bad_files_need_no_database(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(json.dumps({"images": 3}))
    for arguments, sentence in (
            (("--predictions", str(tmp_path / "nix")), "make it with python tools/infer.py"),
            (("--data", str(tmp_path / "bad.json")), "no list 'images'")):
        done, _ = run_tool(*arguments, FIFTYONE_DATABASE_URI="mongodb://127.0.0.1:1")
        assert done.returncode == 2 and sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_newest_results_and_names(tmp_path: Path) -> None:
    assert session.newest_results(tmp_path) is None
    for age, name in ((5, "old"), (1, "new"), (9, "oldest")):
        file = tmp_path / name / "detections.json"
        file.parent.mkdir()
        file.write_text("{}")
        os.utime(file, (1e9 - age, 1e9 - age))
    newest = session.newest_results(tmp_path)
    assert newest is not None and newest.parent.name == "new"
    assert app.dataset_name(newest) == "musicon-new"
    deeper = tmp_path / "demo" / "unseen" / "detections.json"
    deeper.parent.mkdir(parents=True)
    deeper.write_text("{}")
    os.utime(deeper, (2e9, 2e9))
    assert session.newest_results(tmp_path) == deeper
    assert app.dataset_name(None, tmp_path / "Gemälde (1)") == "musicon-Gemälde-1"


def test_previews_only_for_what_browsers_cannot_show(tmp_path: Path) -> None:
    jpeg, tiff = picture(tmp_path / "a.jpg"), picture(tmp_path / "b.tif", (3000, 40))
    broken = tmp_path / "c.tif"
    broken.write_bytes(b"II*\0 no picture")
    previews = make_previews([(jpeg, 200, 100), (tiff, 3000, 40), (broken, 9, 9)], tmp_path / "p")
    assert list(previews) == [tiff]
    with Image.open(previews[tiff]) as preview:
        assert preview.format == "JPEG" and preview.size[0] <= 2560
