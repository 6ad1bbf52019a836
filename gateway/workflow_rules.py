"""Which classes clients' own graphs may use, and which of them swap faces: lists of patterns, and those that ship.

``DEFAULT_DENY`` names classes that run code, read paths or folders, open URLs, or reach what belongs to other jobs. It can
only hold what is known; a pool for strangers is safer with a list of what is allowed. Pure.

Sources: ComfyUI a125cd84, VideoHelperSuite 4ee72c0, ReActor 6ad6b35; for the other packs, their public documentation.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

#: Lists of patterns that are kept as expressions: the gateway's, and those of the keys that were used last.
MAX_COMPILED: Final = 64
#: In a list of patterns: all of ``DEFAULT_DENY``, or of ``SWAPS_FACES``.
SHIPPED: Final = "default"

#: Patterns of classes that put one person's face in place of another's, whatever the case of their letters. Wide on
#: purpose: a class that is taken for one by mistake asks for a consent too many. What only makes a face resemble a photo
#: (InstantID, PuLID, IPAdapter FaceID and their like) is not among them.
SWAPS_FACES: Final = frozenset(
    {
        "*faceswap*",
        "*face swap*",
        "*face_swap*",
        "*face-swap*",
        "*swapface*",
        "*swap face*",
        "*swap_face*",
        "*swap-face*",
        "*facefusion*",
        "*inswapper*",
        "*roop*",
    }
)

#: What the classes do -> patterns of their names.
DENIED_BY_REASON: Final[dict[str, tuple[str, ...]]] = {
    "run code": (
        "*PythonCode*",
        "*Python Code*",
        "*PythonScript*",
        "*PythonExec*",
        "*PythonInterpreter*",
        "*Python Interpreter*",
        "*PythonNode*",
        "ExecutePython*",
        "RunPython*",
        "KY_Eval_Python*",
        "ACE_Expression_Eval",
        "Power Puter (rgthree)",
        "AnyNode*",
        "*ShellCommand*",
        "*RunCommand*",
        "*ExecuteCommand*",
        "*JavascriptExec*",
        "interpreter_tool",
        "interpreter_function",
    ),
    "read or write paths": (
        "VHS_LoadVideoPath",
        "VHS_LoadVideoFFmpegPath",
        "VHS_LoadImagePath",
        "VHS_LoadImagesPath",
        "VHS_LoadImages",
        "VHS_LoadAudio",
        "VHS_SelectLatest",
        "LoadImageSetFromFolderNode",
        "LoadImageTextSetFromFolderNode",
        "LoadImageDataSetFromFolder",
        "LoadImageTextDataSetFromFolder",
        "LoadTrainingDataset",
        "SaveTrainingDataset",
        "LoadImagesFromFolder*",
        "LoadVideosFromFolder*",
        "LoadImagesFromDirectory*",
        "LoadImagesFromDir*",
        "LoadImageListFromDir*",
        "LoadImagesFromPath*",
        "LoadImageFromPath*",
        "LoadVideoFromPath*",
        "LoadPromptsFrom*",
        "LoadSinglePromptFromFile*",
        "LoadText|pysssss",
        "SaveText|pysssss",
        "Load Image Batch",
        "Image Load",
        "Image Save",
        "Image Saver",
        "Load Text File",
        "Save Text File",
        "Text Load Line From File",
        "Text File History Loader",
        "Image History Loader",
        "Create Video from Path",
        "Create Morph Image from Path",
        "Video Dump Frames",
        "Write to GIF",
        "Write to Video",
        "Load Cache",
        "Cache Node",
        "Export API",
        "CR Load Image List*",
        "CR Load Text List",
        "CR Load Animation Frames",
        "CR Load Schedule From File",
        "CR Load Prompt Style",
        "CR Output Schedule To File",
        "CR Save Text To File",
        "Load Image Sequence (mtb)",
        "Save Image Sequence (mtb)",
        "SaveImageKJ",
        "SaveStringKJ",
        "Read JSON file [[]Crystools]",
        "Load image with metadata [[]Crystools]",
        "Save image with extra metadata [[]Crystools]",
        "easy loadImagesForLoop",
        "easy imagesCountInDirectory",
        "easy saveText*",
        "load_file*",
        "load_excel*",
        "JWImageLoad*",
        "JWImageSave*",
        "*Screencap*",
        "ImageGrabPIL",
        "WebcamCaptureCV2",
    ),
    "open URLs": (
        "*FromUrl*",
        "*FromURL*",
        "*From Url*",
        "*From URL*",
        "*ByUrl*",
        "*ByURL*",
        "LoadImageUrl*",
        "LoadImageURL*",
        "UrlToImage*",
        "URLToImage*",
        "DownloadImage*",
        "Download Image*",
        "DownloadFile*",
        "FetchRemote*",
        "*HttpRequest*",
        "*HTTPRequest*",
        "*HTTP Request*",
        "*HTTP_Request*",
        "*APIRequest*",
        "*Webhook*",
        "*WebHook*",
        "DiscordSend*",
        "SendEmail*",
        "LoadImageS3",
        "SaveImageS3",
        "SaveVideoFilesS3",
        "UploadFileS3",
        "DownloadFileS3",
        "CivitAI_*",
        "*ModelDownloader*",
        "*Model Down-Loader*",
        "HF Downloader*",
        "*HuggingFaceDownload*",
        "*Huggingface Downloader*",
        "True Random.org Number Generator",
        "load_url*",
        "api_tool",
        "api_function",
    ),
    "reach what belongs to other jobs": (
        "ReActorSaveFaceModel",
        "ReActorBuildFaceModel",
        "VHS_BatchManager",
        "Get Batch From History (mtb)",
        "Batch From History (mtb)",
        "CacheBackendData*",
        "RetrieveBackendData*",
        "ImpactQueueTrigger*",
    ),
}

#: Patterns, as ``fnmatch`` reads them, upper and lower case apart.
DEFAULT_DENY: Final = frozenset(pattern for patterns in DENIED_BY_REASON.values() for pattern in patterns)

#: Refused whatever the lists say: a URL that it calls may come from the gateway alone, by way of a template.
NEVER: Final = frozenset({"GatewayUploadOutput"})


def swaps_faces(classes: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether a class among these is one that swaps faces.

    Args:
        classes: of a graph's nodes.
        patterns: as settings hold them; ``SHIPPED`` stands for ``SWAPS_FACES``.
    """
    listed = {pattern.lower() for pattern in patterns}
    if SHIPPED in listed:
        listed = (listed - {SHIPPED}) | SWAPS_FACES
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for name in set(classes) for pattern in listed)


@dataclass(frozen=True, slots=True)
class NodeRules:
    """Patterns of the classes that may not be used, and of the only ones that may."""

    deny: frozenset[str] = DEFAULT_DENY
    #: None: all that are not denied.
    allow: frozenset[str] | None = None
    #: Rules that have to permit a class as well: those of a key, beside the gateway's.
    own: NodeRules | None = None

    @classmethod
    def of(cls, deny: Iterable[str], allow: Iterable[str]) -> NodeRules:
        """Rules from lists of patterns, as settings hold them; ``SHIPPED`` stands for ``DEFAULT_DENY``, no allowed ones for all."""
        denied, allowed = set(deny), frozenset(allow)
        if SHIPPED in denied:
            denied = (denied - {SHIPPED}) | DEFAULT_DENY
        return cls(frozenset(denied), allowed or None)

    def narrowed(self, own: NodeRules | None) -> NodeRules:
        """These, and beside them those of whoever sends the graph: what either refuses may not be used."""
        return self if own is None else replace(self, own=own)

    def permits(self, class_type: str) -> bool:
        """Whether a graph may hold a node of this class."""
        if class_type in NEVER or _any_of(self.deny).fullmatch(class_type):
            return False
        if self.allow is not None and _any_of(self.allow).fullmatch(class_type) is None:
            return False
        return self.own is None or self.own.permits(class_type)


@lru_cache(maxsize=MAX_COMPILED)
def _any_of(patterns: frozenset[str]) -> re.Pattern[str]:
    """One expression for all of them: a graph may name thousands of classes."""
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in sorted(patterns)) or r"(?!)")
