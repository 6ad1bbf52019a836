"""What is submitted and what comes back, made anew: nothing is downloaded and no face is needed, for nothing looks for one.

Every submission can be made unlike all others without encoding anything (``unlike``): a gateway that keeps files by
content would otherwise be spared the work that its users give it. The large clip is real to the last byte: every packet
is a frame that decodes, so whoever reads it as a video reads all of it.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from PIL import Image

Picture = npt.NDArray[np.uint8]
SIZE = (320, 180)
LARGE_SIZE = (1920, 1080)
FRAMES, FPS = 12, 24


@dataclass(frozen=True)
class Material:
    """Inputs as bytes; results and object_info lie in ``folder`` for the stand-ins."""

    folder: Path
    #: A JPEG of some 60 kB.
    face: bytes
    #: A JPEG to be changed.
    target_image: bytes
    #: An mp4 of 12 frames, some 80 kB.
    video: bytes


def make(folder: Path) -> Material:
    """All small files."""
    face, target = _picture(SIZE[0] * 2, SIZE[1] * 2, seed=1), _picture(*SIZE, seed=2)
    changed = (255 - target).astype(np.uint8)
    Image.fromarray(changed).save(folder / "result.png", compress_level=1)
    (folder / "object_info.json").write_text(json.dumps(object_info()), encoding="utf-8")
    (folder / "result.mp4").write_bytes(_clip([changed] * FRAMES, crf=20))
    return Material(folder, _jpeg(face), _jpeg(target), _clip([target] * FRAMES, crf=1))


def unlike(data: bytes, number: int) -> bytes:
    """The same picture or video as other bytes: a comment in a JPEG, an empty box at the end of an mp4."""
    mark = b"%016d" % number
    if data.startswith(b"\xff\xd8"):
        return data[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(mark)) + mark + data[2:]
    return data + struct.pack(">I", 8 + len(mark)) + b"free" + mark


def large_clip(path: Path, size_bytes: int, *, inverted: bool = False) -> Path:
    """An mp4 of at least ``size_bytes``: one noisy key frame of 1080p, again and again."""
    picture = _picture(*LARGE_SIZE, seed=3)
    packet = _key_frame((255 - picture).astype(np.uint8) if inverted else picture)
    # The same number of frames for both: their sizes differ a little.
    count = -(-size_bytes // 2_400_000)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *LARGE_SIZE, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for index in range(count):
            copy = Packet(packet)
            copy.stream, copy.time_base, copy.pts, copy.dts, copy.is_keyframe = (
                stream,
                Fraction(1, FPS),
                index,
                index,
                True,
            )
            container.mux(copy)
    return path


def _key_frame(picture: Picture) -> bytes:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = *LARGE_SIZE, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS)
    encoder.options = {"qp": "4", "preset": "ultrafast", "g": "1", "bf": "0"}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode()])


def _picture(width: int, height: int, *, seed: int) -> Picture:
    """A slope with noise on it: large when compressed, and its negative is another picture everywhere."""
    slope = np.add.outer(np.linspace(0, 80, height), np.linspace(0, 60, width))
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return np.clip(slope[..., None] + noise, 0, 255).astype(np.uint8)


def _jpeg(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _clip(pictures: list[Picture], *, crf: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(crf), "preset": "ultrafast", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------- graphs and what they need


def object_info() -> dict[str, object]:
    """The classes of our templates, as an installation with a swap model and no others lists them.

    Source: /object_info of ComfyUI a125cd84 with VideoHelperSuite 4ee72c0 and ReActor 6ad6b35, inputs that a prompt
    must give.
    """
    gender = [["no", "female", "male"], {"default": "no"}]
    swap = {
        "enabled": ["BOOLEAN", {}],
        "input_image": ["IMAGE"],
        "swap_model": [["none", "inswapper_128.onnx"]],
        "facedetection": [["retinaface_resnet50", "YOLOv5l"]],
        "face_restore_model": [["none"]],
        "face_restore_visibility": ["FLOAT", {"default": 1, "min": 0.1, "max": 1}],
        "codeformer_weight": ["FLOAT", {"default": 0.5, "min": 0, "max": 1}],
        "detect_gender_input": gender,
        "detect_gender_source": gender,
        "input_faces_index": ["STRING", {"default": "0"}],
        "source_faces_index": ["STRING", {"default": "0"}],
        "console_log_level": [[0, 1, 2], {"default": 1}],
    }
    boost = {
        "enabled": ["BOOLEAN", {}],
        "boost_model": [["none"]],
        "interpolation": [["Nearest", "Bilinear", "Bicubic", "Lanczos"]],
        "visibility": ["FLOAT", {}],
        "codeformer_weight": ["FLOAT", {}],
        "restore_with_main_after": ["BOOLEAN", {}],
    }
    whole = ["INT", {"default": 0}]
    video = dict.fromkeys(
        ("custom_width", "custom_height", "frame_load_cap", "skip_first_frames", "select_every_nth"), whole
    )
    combine = {
        "images": ["IMAGE"],
        "frame_rate": ["FLOAT", {}],
        "loop_count": whole,
        "filename_prefix": ["STRING", {}],
        "format": [["image/gif", "image/webp", "video/ffmpeg-gif", "video/h264-mp4"]],
        "pingpong": ["BOOLEAN", {}],
        "save_output": ["BOOLEAN", {}],
    }
    return {
        "LoadImage": _class({"image": [["example.png"], {"image_upload": True}]}),
        "SaveImage": _class({"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, is_output=True),
        "VHS_LoadVideo": _class({"video": [["example.mp4"]], "force_rate": ["FLOAT", {}], **video}, format=[["None"]]),
        "VHS_VideoInfo": _class({"video_info": ["VHS_VIDEOINFO"]}),
        "VHS_VideoCombine": _class(combine, is_output=True, audio=["AUDIO"]),
        "ReActorFaceSwap": _class(swap, source_image=["IMAGE"], face_model=["FACE_MODEL"], face_boost=["FACE_BOOST"]),
        "ReActorFaceBoost": _class(boost),
    }


def _class(required: dict[str, object], *, is_output: bool = False, **optional: object) -> dict[str, object]:
    return {"input": {"required": required, "optional": optional}, "output_node": is_output, "output": []}


def swap_graph(target: str, face: str, *, is_video: bool = False) -> dict[str, object]:
    """What a direct client submits: as much as a swap needs."""
    loader = "VHS_LoadVideo" if is_video else "LoadImage"
    saver = "VHS_VideoCombine" if is_video else "SaveImage"
    swap = {"input_image": ["1", 0], "source_image": ["2", 0], "swap_model": "inswapper_128.onnx"}
    return {
        "1": {"class_type": loader, "inputs": {"video" if is_video else "image": target}},
        "2": {"class_type": "LoadImage", "inputs": {"image": face}},
        "4": {"class_type": "ReActorFaceSwap", "inputs": swap},
        "5": {"class_type": saver, "inputs": {"images": ["4", 0], "filename_prefix": "bench"}},
    }
