"""Which inputs of a node name files, folders, URLs or output prefixes: the places where no word of a client may stand.

ComfyUI's loaders take absolute and climbing paths, names in the folders of other people's outputs, and VideoHelperSuite's
take URLs; their lists hold what others uploaded. An input counts as such a place by our own table of classes, by the flags
that /object_info shows, or by its name, in this order.

Sources: ComfyUI a125cd84 (``nodes.py``, ``comfy_extras/``, ``comfy_api_nodes/``, ``folder_paths.py``), VideoHelperSuite
4ee72c0, ReActor 6ad6b35. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from gateway.comfy.specs import ANYTHING, COMBO, InputSpec


class Place(StrEnum):
    """What an input names."""

    #: A file that the node reads: the job brings it, under the name that we gave it.
    FILE = "file"
    #: What the files that the node writes are called: ours.
    PREFIX = "prefix"
    #: A folder, a URL, or a path that no staged file has: nothing of a client's may stand there.
    CLOSED = "closed"


#: (class, input) -> what it names; None: nothing, whatever it is called.
KNOWN: Final[Mapping[tuple[str, str], Place | None]] = {
    ("LoadImage", "image"): Place.FILE,
    ("LoadImageMask", "image"): Place.FILE,
    ("LoadImageOutput", "image"): Place.FILE,
    ("LoadAudio", "audio"): Place.FILE,
    ("RecordAudio", "audio"): Place.FILE,
    ("LoadVideo", "file"): Place.FILE,
    ("LoadLatent", "latent"): Place.FILE,
    ("Load3D", "model_file"): Place.FILE,
    ("Load3DAnimation", "model_file"): Place.FILE,
    ("OpenAIInputFiles", "file"): Place.FILE,
    ("GeminiInputFiles", "file"): Place.FILE,
    ("WebcamCapture", "image"): Place.FILE,
    ("VHS_LoadVideo", "video"): Place.FILE,
    ("VHS_LoadVideoFFmpeg", "video"): Place.FILE,
    ("VHS_LoadAudioUpload", "audio"): Place.FILE,
    # An object of several file names that the editor's widget uploads.
    ("Load3D", "image"): Place.CLOSED,
    ("Load3DAnimation", "image"): Place.CLOSED,
    # Folders below the input folder, where the files of all jobs lie.
    ("LoadImageSetFromFolderNode", "folder"): Place.CLOSED,
    ("LoadImageTextSetFromFolderNode", "folder"): Place.CLOSED,
    ("VHS_LoadImages", "directory"): Place.CLOSED,
    # Relative to the working directory of the server, or URLs.
    ("VHS_LoadVideoPath", "video"): Place.CLOSED,
    ("VHS_LoadVideoFFmpegPath", "video"): Place.CLOSED,
    ("VHS_LoadImagePath", "image"): Place.CLOSED,
    ("VHS_LoadImagesPath", "directory"): Place.CLOSED,
    ("VHS_LoadAudio", "audio_file"): Place.CLOSED,
    ("VHS_SelectLatest", "filename_prefix"): Place.CLOSED,
    ("VHS_SelectLatest", "filename_postfix"): Place.CLOSED,
    ("ReActorSaveFaceModel", "face_model_name"): Place.CLOSED,
    ("ReActorBuildFaceModel", "face_model_name"): Place.CLOSED,
    # Only told to the editor, which then asks for the file itself.
    ("Preview3D", "model_file"): None,
    ("Preview3DAnimation", "model_file"): None,
    # Its choices are the ways to measure; it reads no file.
    ("KlingImageGenerationNode", "image_type"): None,
}

#: Types whose values are words, so that a word of a client's can reach such an input through a link too.
WORDY: Final = frozenset({"STRING", COMBO, ANYTHING})
#: Types that the editor's recording widgets make file names of.
_RECORDED: Final = frozenset({"WEBCAM", "AUDIO_RECORD"})
_OBJECTS_OF_FILES: Final = frozenset({"LOAD_3D", "LOAD_3D_ANIMATION", "LOAD3D"})

_MEDIA: Final = frozenset({"image", "img", "video", "audio", "mask", "gif"})
_FILES: Final = frozenset({"file", "files", "filename", "filenames"})
_URLS: Final = frozenset({"url", "urls", "uri", "uris"})
_CLOSED: Final = _URLS | frozenset(
    {"path", "paths", "filepath", "filepaths", "imagepath"}
    | {"dir", "dirs", "directory", "directories", "folder", "folders", "subfolder", "subfolders"}
)
#: What follows the word that says what an input names, in names such as "file_name", "image_path_1", "folder_list".
_TRAILING: Final = frozenset({"name", "names", "list", "str", "string", "text", "in", "input", "opt", "optional"})
#: A list with one of these words in its name is one of models, whatever else it is called: "model_path".
_MODELS: Final = frozenset(
    {"model", "models", "ckpt", "checkpoint", "lora", "vae", "clip", "unet", "controlnet", "embedding", "diffusers"}
)
#: Suffixes of what people upload and nodes put out; lists of models, fonts and settings hold none of them.
_UPLOADED: Final = re.compile(
    r".+\.(png|jpe?g|webp|gif|bmp|tiff?|avif|heic|mp4|webm|mkv|mov|avi|m4v|wav|mp3|ogg|flac|m4a|opus|aac"
    r"|glb|gltf|obj|stl|fbx|latent|pdf)( \[(input|output|temp)\])?",
    re.IGNORECASE,
)
#: A name with a suffix; a list of those is no list of folders.
_WITH_SUFFIX: Final = re.compile(r".+\.\w{1,12}")
#: Paths that leave the folder in which they are looked up, URLs, and names in another folder.
_LEADS_AWAY: Final = re.compile(
    r"\s*(?:[a-z][a-z0-9+.-]*:[/\\]|[/\\~])|(?:.*[/\\])?\.\.(?:[/\\]|$)|.*\[(?:input|output|temp)\]\s*$",
    re.IGNORECASE | re.DOTALL,
)
_WORD: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def place_of(class_type: str, name: str, spec: InputSpec | None, *, is_output: bool) -> Place | None:
    """What an input names, or None where any value is as good as another.

    Args:
        class_type: of the node.
        name: of the input.
        spec: what the upstream says of it; None where no upstream knows it, and only our table is asked.
        is_output: whether the class is one for whose sake graphs run, so that it writes what it names.
    """
    if (class_type, name) in KNOWN:
        return KNOWN[class_type, name]
    if spec is None:
        return None
    if flagged := _flagged(spec):
        return flagged
    if spec.type == COMBO:
        return _choice(name, spec)
    if not spec.types & WORDY:
        return None
    return _word(name, is_output=is_output)


def _flagged(spec: InputSpec) -> Place | None:
    """By what the editor is told to put beside it."""
    if any(key.endswith("_upload") and value for key, value in spec.options.items()):
        return Place.FILE
    if "image_folder" in spec.options or spec.types & _RECORDED:
        return Place.FILE
    if "vhs_path_extensions" in spec.options or spec.types & _OBJECTS_OF_FILES:
        return Place.CLOSED
    return None


def _choice(name: str, spec: InputSpec) -> Place | None:
    words, choices = words_of(name), spec.choices or ()
    if any(isinstance(choice, str) and _UPLOADED.fullmatch(choice) for choice in choices):
        return Place.FILE
    if _MODELS.intersection(words):
        return None
    if not choices and (_is_media(words) or _last(words) in _FILES):
        return Place.FILE
    has_suffixes = any(isinstance(choice, str) and _WITH_SUFFIX.fullmatch(choice) for choice in choices)
    return Place.CLOSED if _last(words) in _CLOSED - _URLS and not has_suffixes else None


def _word(name: str, *, is_output: bool) -> Place | None:
    words = words_of(name)
    if name == "filename_prefix" or (is_output and "prefix" in words):
        return Place.PREFIX
    if name == "face_model_name" or _last(words) in _CLOSED:
        return Place.CLOSED
    if _last(words) in _FILES:
        return Place.PREFIX if is_output else Place.FILE
    return Place.FILE if _is_media(words) else None


def _is_media(words: tuple[str, ...]) -> bool:
    stem = _stem(words)
    return len(stem) == 1 and stem[0] in _MEDIA


def _last(words: tuple[str, ...]) -> str:
    """The word that says what is named."""
    return _stem(words)[-1] if words else ""


def _stem(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words without those that say nothing: "image" of "input_image_1"."""
    left = list(words)
    while len(left) > 1 and (left[-1] in _TRAILING or left[-1].isdigit()):
        left.pop()
    return tuple(left[1:] if len(left) > 1 and left[0] == "input" else left)


def words_of(name: str) -> tuple[str, ...]:
    """The words of an input's name, however they are put together: "imagePath", "Image-Path", "image_path".

    Of one that grew within another ("model.image_path") those of the inner.
    """
    return tuple(word.lower() for word in _WORD.findall(name.rpartition(".")[2]))


def sounds_like_path(name: str) -> bool:
    """Whether an input is called as those are that take words for a file, folder or URL."""
    words = words_of(name)
    return _last(words) in _FILES | _CLOSED or "prefix" in words


def may_name(name: str, value: object) -> bool:
    """Whether a literal at an input that its class does not list could name a file, folder or URL all the same."""
    names_one = _is_media(words_of(name)) or sounds_like_path(name)
    left, found = [value], False
    while left and not found:
        each = left.pop()
        if isinstance(each, str):
            found = bool(each) and (names_one or _LEADS_AWAY.match(each) is not None)
        elif isinstance(each, Mapping):
            left += each.values()
        elif isinstance(each, list):
            left += each
    return found
