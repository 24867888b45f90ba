"""Decoding: hand-made pixels in every form that real files come in."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin
from upright import RED, STORED, UPRIGHT, WHITE, corners, png16, save, seen, wide_gamut

from musicon.datasets import pixels
from musicon.datasets.images import decode, decode_reduced, probe


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_eight_orientations(tmp_path: Path, orientation: int, kind: str) -> None:
    file = tmp_path / "a"
    picture = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else (
        {"lossless": True} if kind == "WEBP" else {})
    if kind == "TIFF":
        picture.save(file, kind, tiffinfo={274: orientation})
    else:
        picture.save(file, kind, exif=exif, **options)
    array = decode(file)
    assert array.shape == (16, 32, 3)
    seen(array)
    info = probe(file)
    assert (info.width, info.height) == (32, 16)
    small, size = decode_reduced(file, 16)
    assert small.shape == (8, 16, 3) and size == (32, 16)
    seen(small, 60)
    with Image.open(file) as theirs:
        assert np.array_equal(array, np.array(ImageOps.exif_transpose(theirs).convert("RGB")))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_nonsense_orientation_counts_as_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png", exif=exif)
    seen(decode(tmp_path / "a.png"))


def test_grey(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    array = decode(save(tmp_path, Image.fromarray(grey), "PNG"))
    assert np.array_equal(array, np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white(tmp_path: Path) -> None:
    stripes = Image.fromarray(np.tile([[0, 255]], (4, 8)).astype(np.uint8)).convert("1")
    for kind in ("PNG", "TIFF"):
        assert decode(save(tmp_path, stripes, kind))[0, :2, 0].tolist() == [0, 255]


def test_palette(tmp_path: Path) -> None:
    for kind in ("PNG", "GIF", "BMP"):
        seen(decode(save(tmp_path, Image.fromarray(UPRIGHT).quantize(8), kind)), 30)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :, 0], rgba[:, 1, 3], rgba[:, 2, 3], rgba[:, 3, 3] = 200, 51, 128, 255
    array = decode(save(tmp_path, Image.fromarray(rgba), "PNG"))
    # white * (1 - a) + colour * a with a = 0, .2, .502, 1, by hand
    assert array[0].tolist() == pytest.approx(
        np.array([[255, 255, 255], [244, 204, 204], [227, 127, 127], [200, 0, 0]]), abs=1)


def test_transparency_of_every_kind(tmp_path: Path) -> None:
    base = Image.fromarray(UPRIGHT)
    hole = Image.new("L", base.size, 255)
    hole.paste(0, (0, 0, 16, 8))  # the red corner is cut out
    rgba = base.copy()
    rgba.putalpha(hole)
    grey = Image.merge("LA", (base.convert("L"), hole))
    palette = base.quantize(8)
    index = palette.getpixel((2, 2))
    cases: list[tuple[Image.Image, str, dict[str, Any]]] = [
             (rgba, "PNG", {}), (rgba, "WEBP", {"lossless": True}), (rgba, "TIFF", {}),
             (grey, "PNG", {}), (palette, "PNG", {"transparency": index}),
             (palette, "GIF", {"transparency": index}),
             (base, "PNG", {"transparency": RED}),
             (base.convert("L"), "PNG", {"transparency": base.convert("L").getpixel((2, 2))})]
    for picture, kind, options in cases:
        file = save(tmp_path, picture, kind, **options)
        assert decode(file)[2, 2].tolist() == [255, 255, 255], (picture.mode, kind)
        assert decode(file)[2, 30].max() < 255
        assert probe(file).has_alpha
        assert decode_reduced(file, 8)[0][0, 0].tolist() == [255, 255, 255]


def test_no_transparency_is_told_as_such(tmp_path: Path) -> None:
    assert not probe(save(tmp_path, Image.fromarray(UPRIGHT), "PNG")).has_alpha


def test_invisible_colours_do_not_bleed_when_shrunk(tmp_path: Path) -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, :32] = (0, 200, 0, 255)  # green; the rest is transparent black
    small, _ = decode_reduced(save(tmp_path, Image.fromarray(rgba), "PNG"), 8)
    assert (small[..., 1] >= 199).all(), "black from the invisible half would darken the seam"


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(tmp_path: Path, kind: str) -> None:
    """Pillow writes CMYK JPEG inverted with Adobe's marker, as Photoshop does."""
    ink = np.zeros((16, 32, 4), np.uint8)
    ink[:8, :16], ink[:8, 16:], ink[8:, :16] = (0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0)
    file = save(tmp_path, Image.fromarray(ink, "CMYK"), kind,
                **({"quality": 100} if kind == "JPEG" else {}))
    if kind == "JPEG":
        assert b"Adobe" in file.read_bytes()[:2000]
    array = decode(file)
    for found, wanted in zip(corners(array), ((255, 0, 0), (0, 255, 0), (0, 0, 255), WHITE),
                             strict=True):
        assert np.abs(np.array(found) - wanted).max() <= 12


def test_sixteen_bit_grey_is_scaled_not_cut(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        array = decode(save(tmp_path, Image.fromarray(ramp), kind))
        assert array[..., 0].ravel().tolist() == list(range(256))


@pytest.mark.parametrize("tag", [281, 341])
def test_twelve_bits_in_sixteen_where_the_tiff_says_so(tmp_path: Path, tag: int) -> None:
    ramp = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[tag] = 3
    tags[tag] = 4095
    array = decode(save(tmp_path, Image.fromarray(ramp), "TIFF", tiffinfo=tags))
    assert np.abs(array[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


def test_twelve_bits_packed_into_bytes(tmp_path: Path) -> None:
    """Two pixels in three bytes: 0x000, 0x800, 0xFFF, 0x400."""
    tags = ((256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (278, 1), (279, 6))
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    (tmp_path / "a.tif").write_bytes(
        b"II*\0" + struct.pack("<I", 14) + bytes.fromhex("000800fff400")
        + struct.pack("<H", len(tags)) + entries + bytes(4))
    assert decode(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255, 64]


def test_sixteen_bit_rgb_png(tmp_path: Path) -> None:
    wide = (UPRIGHT.astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    (tmp_path / "a.png").write_bytes(png16(32, 16, rows, 2))
    assert np.array_equal(decode(tmp_path / "a.png"), UPRIGHT)


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}, {"bigtiff": True}])
def test_sixteen_bit_and_float_rgb_tiff(tmp_path: Path, options: dict[str, object]) -> None:
    tifffile = pytest.importorskip("tifffile")
    planar = options.get("planarconfig") == "separate"
    for values in ((UPRIGHT.astype(np.uint16) * 257), (UPRIGHT / 255).astype(np.float32)):
        stored = values.transpose(2, 0, 1) if planar else values
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
        array = decode(tmp_path / "a.tif")
        assert np.abs(array.astype(int) - UPRIGHT).max() <= 1
        assert probe(tmp_path / "a.tif").width == 32


def test_inverted_grey_tiff(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        values = np.full((8, 8), top, dtype)
        values[0] = 0
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
        assert decode(tmp_path / "a.tif")[[0, 1], 0, 0].tolist() == [255, 0]


@pytest.mark.parametrize(("values", "expected"), [
    ([0.0, 0.5, 1.0], [0, 128, 255]),          # shares
    ([0.0, 128.0, 255.0], [0, 128, 255]),      # 8-bit values written as floats
    ([-1000.0, 0.0, 3000.0], [0, 64, 255]),    # a range of its own
    ([0.0, float("nan"), 1.0], [0, 0, 255]),
    ([float("-inf"), 0.0, 1.0], [0, 0, 255]),
    ([0.0, 1.0, float("inf")], [0, 255, 255]),
    ([7000.0, 7000.0, 7000.0], [0, 0, 0]),
])
def test_float_tiff(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    file = save(tmp_path, Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert decode(file)[0, :, 0].tolist() == pytest.approx(expected, abs=1)


def test_embedded_profile_is_applied(tmp_path: Path) -> None:
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 100, "subsampling": 0}), ("TIFF", {})):
        swapped = np.ascontiguousarray(UPRIGHT[..., [1, 0, 2]])
        file = save(tmp_path, Image.fromarray(swapped), kind, icc_profile=wide_gamut(), **options)
        seen(decode(file))
        seen(decode_reduced(file, 16)[0], 60)


def test_srgb_and_broken_profiles_change_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"not a profile", srgb[:200]):
        file = save(tmp_path, Image.fromarray(UPRIGHT), "PNG", icc_profile=profile)
        assert np.array_equal(decode(file), UPRIGHT)


def test_lab_tiff(tmp_path: Path) -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
                                     "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(UPRIGHT), to_lab)
    assert lab is not None
    seen(decode(save(tmp_path, lab, "TIFF")), 20)


def test_scaled_leaves_its_argument_alone() -> None:
    values = np.array([[0.0, np.nan, 9.0]])
    pixels.scaled(values, True)
    assert np.isnan(values[0, 1])
