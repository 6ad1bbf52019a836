"""Jobs that never were, for examples: what a dialect says of them is made by the dialect itself."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Final

from gateway.audit import MediaFacts, MediaKind
from gateway.events import Progress
from gateway.faces import Face, FaceReport
from gateway.job import Job, JobInput, JobResult, JobState

JOB_ID: Final = "01978b6e-6b8c-7c3a-9c1e-5d2f8a4b7c90"
LINK: Final = "holiday_3f9c1a7e5b2d8c4f60.mp4"
CREATED_AT: Final = 1_750_258_800.0
_PHOTO: Final = MediaFacts(
    MediaKind.IMAGE, "image/jpeg", ".jpg", 1024, 1024, 1, None, None, has_audio=False, video_codec=None
)
_CLIP: Final = MediaFacts(
    MediaKind.VIDEO, "video/mp4", ".mp4", 1280, 720, 250, Fraction(25), 10.0, has_audio=True, video_codec="h264"
)

QUEUED: Final = Job(
    id=JOB_ID,
    owner="local",
    submitter="127.0.0.1",
    dialect="faceswap",
    task="face_swap",
    template="faceswap_video",
    template_version="5d41402abc4b",
    state=JobState.QUEUED,
    priority=0,
    parameters={},
    inputs={
        "target": JobInput("asset-1", "a" * 64, 2_310_400, _CLIP),
        "face": JobInput("asset-2", "b" * 64, 184_320, _PHOTO),
    },
    output_name="holiday",
    created_at=CREATED_AT,
    updated_at=CREATED_AT,
    queue_deadline=CREATED_AT + 86_400,
    last_event=1,
)
RUNNING: Final = replace(
    QUEUED,
    state=JobState.RUNNING,
    started_at=CREATED_AT + 2,
    updated_at=CREATED_AT + 9,
    engine="comfyui",
    upstream="gpu-1",
    last_event=3,
)
PROGRESS: Final = Progress(
    JOB_ID,
    0.42,
    "Swapping faces, frame 105 of 250",
    nodes_done=3,
    nodes_total=6,
    node="4",
    node_title="Swap",
    node_class="ReActorFaceSwap",
    step=105,
    steps=250,
    eta_seconds=12.4,
)
SUCCEEDED: Final = replace(
    RUNNING,
    state=JobState.SUCCEEDED,
    finished_at=CREATED_AT + 31,
    updated_at=CREATED_AT + 31,
    fraction=1.0,
    results=(JobResult("asset-3", "c" * 64, 2_950_144, _CLIP, LINK),),
    last_event=5,
)
FAILED: Final = replace(
    RUNNING,
    state=JobState.FAILED,
    finished_at=CREATED_AT + 12,
    updated_at=CREATED_AT + 12,
    error_code="no_face_found",
    error_message="No face was found in the video.",
    last_event=5,
)
CANCELED: Final = replace(
    QUEUED, state=JobState.CANCELED, finished_at=CREATED_AT + 3, updated_at=CREATED_AT + 3, last_event=2
)
REPORT: Final = FaceReport("reactor", 1024, 1024, (Face(0, 212.0, 148.5, 190.0, 236.0, 44_840.0),))
