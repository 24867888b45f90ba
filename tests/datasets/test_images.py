"""Pictures are found and opened: every format, any size, and files that are none."""

from __future__ import annotations

import io
import os
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from upright import GREEN, RED, STORED, UPRIGHT, png16, save, seen, wide_gamut

from musicon.datasets import images
from musicon.datasets.files import Rejects
from musicon.datasets.images import ImageError, decode, decode_reduced, probe


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


def test_no_permission(tmp_path: Path, permissions_count: None) -> None:
    file = save(tmp_path, Image.fromarray(UPRIGHT), "PNG")
    file.chmod(0)
    with pytest.raises(ImageError, match="no permission to read this file"):
        decode(file)


def test_a_pipe_called_like_a_picture_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    (tmp_path / "y.png").symlink_to("/dev/null")
    for file in images.find_images(tmp_path):
        with pytest.raises(ImageError, match="a pipe, socket or device"):
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


@pytest.mark.parametrize("place", ["", "**/*.jpg", "*/*.jpg", "o*"])
def test_folders_that_may_not_be_read_are_told(tmp_path: Path, permissions_count: None,
                                               place: str) -> None:
    touch(tmp_path / "open" / "x.jpg", tmp_path / "open" / "shut" / "y.jpg",
          tmp_path / "other" / "z.jpg")
    shut = tmp_path / ("other" if place == "*/*.jpg" else "open/shut")
    shut.chmod(0)
    rejects = Rejects()
    assert tmp_path / "open" / "x.jpg" in images.find_images(tmp_path / place, rejects)
    told = "no permission to read this folder; change its permissions"
    assert rejects.rows == [(str(shut), told)]
    for forbidden, given in ((tmp_path / place, None), (shut, rejects), (shut / "*.jpg", rejects)):
        with pytest.raises(ImageError) as caught:
            images.find_images(forbidden, given)
        assert str(caught.value) == f"{shut}: {told}"
    shut.chmod(0o755)


@pytest.mark.real
def test_every_real_picture_decodes(real_fixture: Path) -> None:
    files = images.find_images(real_fixture)
    assert len(files) == 2936
    with ThreadPoolExecutor(4) as pool:
        for info, (small, size) in zip(pool.map(probe, files),
                                       pool.map(lambda f: decode_reduced(f, 64), files),
                                       strict=True):
            assert (info.width, info.height) == size and max(small.shape[:2]) <= 64
