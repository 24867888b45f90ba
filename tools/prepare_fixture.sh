#!/usr/bin/env bash
# Makes the data sets of configs/benchmarks/fixture.yaml from the real collections, below data/fixture:
#   mimo       photos of one instrument each, class labels only
#   scenes     photos of people with guitars and mandolins, boxed, and of others without instruments
#   photos     both of these
#   google     painted guitars and mandolins, class labels only, and paintings without instruments
#   cytomine   artworks with boxes drawn by hand; what the source calls "val" is the test split
#   paintings  instrument-free paintings, none by a painter of the test split
#   guitars    the boxes on the painted guitars, to check what the stages find (never trained on)
#   mandolins  the same for the mandolins
#   weights    what a detector learnt on COCO
#   peopleart  paintings with movement and painter, media: works with their medium (configs/tasks)
# Usage: tools/prepare_fixture.sh [FOLDER of the collections] [TARGET]
set -euo pipefail
fixture=${1:-../shared/fixture}
out=${2:-data/fixture}
python=${PYTHON:-python}
prepare() {
  "$python" tools/prepare_data.py "$@" || [ $? -eq 1 ]  # 1: done, with rejects listed
}

prepare folder "$fixture/photos_kaggle30" --domain mimo --split 80/10/10 --out "$out/mimo"

prepare yolo "$fixture/guitars_yolo" --names guitar --empty unlabelled --domain scenes \
  --split 85/15/0 --out "$out/parts/scene_guitars"
prepare folder "$fixture/photoart50" --match '136.mandolin/*p_*' --boxes "$fixture/photoart50/gt_bb" \
  --domain scenes --split 85/15/0 --out "$out/parts/scene_mandolins"
prepare folder "$fixture/photoart50" --match '*.[!m]*/*p_*' --negatives horse people teapot umbrella \
  --domain scenes --split 85/15/0 --out "$out/parts/scene_negatives"
prepare coco "$out/parts/scene_guitars" "$out/parts/scene_mandolins" "$out/parts/scene_negatives" \
  --out "$out/scenes"
prepare coco "$out/mimo" "$out/scenes" --out "$out/photos"
mkdir -p "$out/weights"
cp "$fixture/weights/yolox_nano_coco.onnx" "$out/weights/"

prepare coco "$fixture/pacs/boxes_painted_guitars.json" --domain google \
  --hold-out val --split 80/20/0 --out "$out/guitars"
prepare coco "$fixture/pacs/boxes_painted_guitars.json" --only guitar --labels-only --domain google \
  --hold-out val --split 80/20/0 --out "$out/parts/guitars"
prepare folder "$fixture/photoart50" --match '136.mandolin/*a_*' --boxes "$fixture/photoart50/gt_bb" \
  --domain google --split 50/15/35 --out "$out/mandolins"
prepare folder "$fixture/photoart50" --match '*/*a_*' --negatives horse people teapot umbrella \
  --domain google --split 60/15/25 --out "$out/parts/photoart50"
prepare folder "$fixture/pacs/art_painting" --match '[hp]*/*' --negatives house person \
  --domain google --split 60/15/25 --out "$out/parts/pacs_negatives"
# Without its mandolins, which are dealt above: of a picture dealt twice, the tested copy stays.
prepare coco "$out/parts/photoart50" --match '*.[!m]*/*' --domain google \
  --out "$out/parts/photoart50_negatives"
prepare coco "$out/mandolins" --labels-only --domain google --out "$out/parts/mandolins"
prepare coco "$out/parts/guitars" "$out/parts/mandolins" "$out/parts/photoart50_negatives" \
  "$out/parts/pacs_negatives" --domain google --out "$out/google"

prepare coco "$fixture/artworks_boxed" --domain cytomine --pattern '(?P<painter>[^_/]+)_[^/]*$' \
  --group-by painter --hold-out val --split 85/15/0 --out "$out/cytomine"
prepare peopleart "$fixture/paintings_peopleart" --without-instruments --domain cytomine \
  --group-by painter --apart-from "$out/cytomine" --split 85/15/0 --out "$out/paintings"

prepare peopleart "$fixture/paintings_peopleart" --out "$out/peopleart"
prepare folder "$fixture/pacs" --attribute medium --out "$out/parts/medium_pacs"
prepare folder "$fixture/icons_byzart/Documents" --attribute medium --out "$out/parts/medium_icons"
prepare folder "$fixture/cutouts" --attribute medium --out "$out/parts/medium_cutouts"
prepare coco "$out/parts/medium_pacs" "$out/parts/medium_icons" "$out/parts/medium_cutouts" \
  --out "$out/media"
