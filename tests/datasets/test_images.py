"""Decoding: hand-made pixels in every form that real files come in, and files that are none."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, features

from musicon.datasets import images, pixels
from musicon.datasets.images import ImageError, decode, decode_reduced, probe

RED, GREEN, BLUE, WHITE = (250, 10, 10), (10, 250, 10), (10, 10, 250), (255, 255, 255)

# What a person sees: red top left, green top right, blue bottom left, white bottom right; wide.
UPRIGHT = np.zeros((16, 32, 3), np.uint8)
UPRIGHT[:8, :16], UPRIGHT[:8, 16:], UPRIGHT[8:, :16], UPRIGHT[8:, 16:] = RED, GREEN, BLUE, WHITE

# EXIF 2.3, tag 0x0112: how row 0 and column 0 of the stored pixels lie in the upright picture,
# so: what to do with the upright pixels to get the stored ones. By hand, corner by corner.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: UPRIGHT.transpose(1, 0, 2)[::-1],
    7: UPRIGHT.transpose(1, 0, 2)[::-1, ::-1],
    8: UPRIGHT.transpose(1, 0, 2)[:, ::-1],
}


def corners(array: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Colours near the four corners, in reading order."""
    h, w = array.shape[:2]
    return [tuple(int(v) for v in array[y, x])
            for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def seen(array: NDArray[np.uint8], tolerance: int = 12) -> None:
    """The picture is upright and in its colours."""
    assert array.dtype == np.uint8 and array.flags.writeable and array.flags.c_contiguous
    for found, wanted in zip(corners(array), (RED, GREEN, BLUE, WHITE), strict=True):
        assert np.abs(np.array(found) - wanted).max() <= tolerance, (found, wanted)


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


def save(tmp_path: Path, picture: Image.Image, kind: str, **options: object) -> Path:
    file = tmp_path / f"a.{kind.lower()}"
    picture.save(file, kind, **options)
    return file


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


def png16(width: int, height: int, rows: bytes, colour: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (struct.pack(">I", len(data)) + name + data
                + struct.pack(">I", zlib.crc32(name + data)))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


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


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "MPO"])
def test_first_frame_of_several(tmp_path: Path, kind: str) -> None:
    more = [Image.new("RGB", (32, 16), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "MPO" else {}
    file = save(tmp_path, Image.fromarray(UPRIGHT), kind, save_all=True, append_images=more,
                **options)
    seen(decode(file), 40)
    assert probe(file, verify=True).frames == 3


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "AVIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_every_format(tmp_path: Path, kind: str) -> None:
    need = {"JPEG2000": "jpg_2000", "AVIF": "avif", "WEBP": "webp"}.get(kind)
    if need and not features.check(need):
        pytest.skip(f"Pillow without {need}")
    file = save(tmp_path, Image.fromarray(UPRIGHT.repeat(8, 0).repeat(8, 1)), kind)
    seen(decode(file), 30)
    assert probe(file, verify=True).format == kind


def test_suffix_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "a.jpg", "PNG")
    assert np.array_equal(decode(tmp_path / "a.jpg"), UPRIGHT)


def wide_gamut() -> bytes:
    """A profile whose red is sRGB's green and the other way round: easy to tell from none."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = struct.unpack(">I", srgb[128:132])[0]
    tags = {srgb[132 + 12 * i:136 + 12 * i]: 132 + 12 * i for i in range(count)}
    out = bytearray(srgb)
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    out[red + 4:red + 12], out[green + 4:green + 12] = (srgb[green + 4:green + 12],
                                                        srgb[red + 4:red + 12])
    description = tags[b"desc"]
    at, size = struct.unpack(">II", srgb[description + 4:description + 12])
    body = bytes(out[at:at + size]).replace(b"s\0R\0G\0B", b"m\0i\0n\0e").replace(b"sRGB", b"mine")
    out[at:at + size] = body
    return bytes(out)


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


def test_reduced_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (150, 200, 3), np.uint8)).resize((1600, 1200))
    file = save(tmp_path, smooth, "JPEG", quality=95)
    for side in (1, 7, 100, 333, 800, 1599):
        small, size = decode_reduced(file, side)
        assert size == (1600, 1200) and max(small.shape[:2]) == side
        if side >= 100:
            theirs = np.array(Image.open(file).resize((small.shape[1], small.shape[0]),
                                                      Image.Resampling.BILINEAR))
            assert np.abs(small.astype(int) - theirs).mean() < 5
    assert decode_reduced(file, 5000)[0].shape == (1200, 1600, 3), "never enlarged"
    with pytest.raises(ValueError, match="at least 1"):
        decode_reduced(file, 0)


JPEG = io.BytesIO()
Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)).save(JPEG, "JPEG")
PNG = io.BytesIO()
Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)).save(PNG, "PNG")


@pytest.mark.parametrize(("content", "words"), [
    (b"", "empty file"),
    (JPEG.getvalue()[:-500], "truncated"),
    (JPEG.getvalue()[:200], "truncated"),
    (JPEG.getvalue()[:3] + b"\0" * 50, "JPEG picture"),
    (PNG.getvalue()[:-500], "truncated"),
    (PNG.getvalue()[:40] + b"\0" * 400, "damaged"),
    (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    (b"\xef\xbb\xbf\n <HTML>", "web page"),
    (b"<?xml version='1.0'?><svg xmlns='x'/>", "SVG"),
    (b"%PDF-1.7 ...", "PDF"),
    (b"PK\x03\x04....", "ZIP"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIC"),
    (b"\0\0\0\x18ftypisom\0\0\0\0", "film"),
    (b"hello there, I am a caption\n", "text file"),
    (b"\0" * 5000, "zero bytes"),
    (np.random.default_rng(2).bytes(64).replace(b"\xff", b"\0") + b"\x80", "not a picture"),
    (b"II*\0\x08\0\0\0" + b"\0" * 60, "TIFF"),
    (b"GIF89a", "GIF"),
])
def test_what_is_no_picture_is_refused_with_a_reason(tmp_path: Path, content: bytes,
                                                     words: str) -> None:
    file = tmp_path / "a picture.jpg"
    file.write_bytes(content)
    for attempt in (decode, lambda f: probe(f, verify=True), lambda f: decode_reduced(f, 8)):
        with pytest.raises(ImageError) as caught:
            attempt(file)
        assert words in caught.value.reason
        assert str(caught.value) == f"{file}: {caught.value.reason}"


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="a folder"):
        decode(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    file = save(tmp_path, Image.fromarray(UPRIGHT), "PNG")
    file.chmod(0)
    with pytest.raises(ImageError, match="no permission"):
        decode(file)


def test_decompression_bomb(tmp_path: Path) -> None:
    """60,000 x 60,000 pixels in a few kilobytes, refused from the header, without a warning."""
    rows = zlib.compress(b"\0" * 100_000)
    bomb = png16(60_000, 60_000, b"", 2)
    (tmp_path / "bomb.png").write_bytes(bomb.replace(zlib.compress(b""), rows))
    before = Image.MAX_IMAGE_PIXELS
    for attempt in (decode, probe):
        with pytest.raises(ImageError, match="60000x60000 pixels is more than"):
            attempt(tmp_path / "bomb.png")
    assert before == Image.MAX_IMAGE_PIXELS
    small = save(tmp_path, Image.fromarray(UPRIGHT), "PNG")
    with pytest.raises(ImageError, match="more than the 100 decoded"):
        decode(small, max_pixels=100)


def test_big_scan_within_the_limit_gives_no_warning(
        tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Pillow alone would warn of a bomb above 89 million pixels."""
    Image.new("1", (10_000, 9_000)).save(tmp_path / "a.png")
    assert probe(tmp_path / "a.png").width == 10_000
    assert not [w for w in recwarn if "bomb" in str(w.message).lower()]


def test_a_scan_too_large_for_one_piece_is_seen_reduced(tmp_path: Path) -> None:
    """More than Pillow would decode of a TIFF (179 million pixels), and than ``decode`` gives."""
    Image.new("1", (15_000, 14_000), 1).save(tmp_path / "scan.tif", compression="tiff_deflate")
    with pytest.raises(ImageError, match="15000x14000 pixels is more than"):
        decode(tmp_path / "scan.tif")
    small, size = decode_reduced(tmp_path / "scan.tif", 150)
    assert size == (15_000, 14_000) and small.shape == (140, 150, 3) and small.min() == 255


@pytest.mark.parametrize(("mode", "known"), [("RGB", True), ("RGBA", False), ("I;16", False)])
def test_scans_that_would_be_copied_to_be_reduced_are_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, known: bool) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    Image.new(mode, (20, 10)).save(tmp_path / "scan.tif")
    if known:
        assert decode_reduced(tmp_path / "scan.tif", 5)[1] == (20, 10)
    else:
        with pytest.raises(ImageError, match="20x10 pixels is more than the 100"):
            decode_reduced(tmp_path / "scan.tif", 5)


def test_planar_tiff_of_a_scan_s_size_is_refused_too(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile = pytest.importorskip("tifffile")
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 10, 20), np.uint16), photometric="rgb",
                     planarconfig="separate")
    with pytest.raises(ImageError, match="20x10 pixels is more than the 100"):
        decode_reduced(tmp_path / "a.tif", 5)


@pytest.mark.parametrize("progressive", [False, True])
def test_large_progressive_jpegs_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            progressive: bool) -> None:
    """Others are decoded at an eighth, but libjpeg holds all coefficients of a progressive one."""
    monkeypatch.setattr(images, "LARGE", 1000)
    Image.new("RGB", (80, 80)).save(tmp_path / "a.jpg", progressive=progressive)
    done = threading.Event()
    thread = threading.Thread(
        target=lambda: (decode_reduced(tmp_path / "a.jpg", 10), done.set()))
    with images._large_lock:
        thread.start()
        assert done.wait(1 if progressive else 30) is not progressive
    thread.join()
    assert done.is_set()


def test_threads(tmp_path: Path) -> None:
    files = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = tmp_path / f"{orientation}.png"
        Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(
            file, exif=exif, icc_profile=wide_gamut())
        files.append(file)
    expected = [decode(file).tobytes() for file in files]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda file: decode(file).tobytes(), files * 20))
    assert got == expected * 20


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")


def test_find_images(tmp_path: Path) -> None:
    good = [tmp_path / name for name in (
        "Böcklin, Pan (1890).jpg", "a[1].png", "deep/er/b.JPEG", "deep/c d.tiff", "phone.heic",
        "z.webp")]
    touch(*good, *(tmp_path / name for name in (
        ".hidden.jpg", ".cache/x.jpg", "__MACOSX/y.jpg", "._z.webp", "notes.txt", "noname")))
    assert images.find_images(tmp_path) == sorted(good)
    assert images.find_images(f"{tmp_path}/a[1].png") == [tmp_path / "a[1].png"]
    assert images.find_images(tmp_path / "Böcklin, Pan (1890).jpg") == [good[0]]
    assert images.find_images(f"{tmp_path}/*.png") == [tmp_path / "a[1].png"]
    assert images.find_images(f"{tmp_path}/**/*.JPEG") == [tmp_path / "deep/er/b.JPEG"]
    assert images.find_images(f"{tmp_path}/dee?") == [tmp_path / "deep/c d.tiff",
                                                      tmp_path / "deep/er/b.JPEG"]
    assert images.find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    for missing in ("nothing", "*.bmp", "a[2].png"):
        with pytest.raises(ImageError, match="no such file or folder, and no file matches"):
            images.find_images(tmp_path / missing)


def test_folder_named_like_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path / "lutes [1600-1700]" / "a.jpg", tmp_path / "lutes 1" / "b.jpg")
    found = images.find_images(tmp_path / "lutes [1600-1700]")
    assert [file.name for file in found] == ["a.jpg"]


def test_empty_folder_and_links(tmp_path: Path) -> None:
    assert images.find_images(tmp_path) == []
    touch(tmp_path / "a" / "x.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert len(images.find_images(tmp_path)) == 1


def test_scaled_leaves_its_argument_alone() -> None:
    values = np.array([[0.0, np.nan, 9.0]])
    pixels.scaled(values, True)
    assert np.isnan(values[0, 1])


@pytest.mark.real
def test_every_real_picture_decodes(real_fixture: Path) -> None:
    files = images.find_images(real_fixture)
    assert len(files) == 2936
    with ThreadPoolExecutor(4) as pool:
        for info, (small, size) in zip(pool.map(probe, files),
                                       pool.map(lambda f: decode_reduced(f, 64), files),
                                       strict=True):
            assert (info.width, info.height) == size and max(small.shape[:2]) <= 64
