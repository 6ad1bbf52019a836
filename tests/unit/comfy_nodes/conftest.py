"""Pictures for the swap core: one portrait, shrunk, mirrored, tinted, panned over. Small, as detection is not free."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from comfy_nodes.detection import detect_faces


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """256x256, one face of about 68 pixels around (157, 80)."""
    crop = data.astronaut()[0:366, 0:366]
    return cv2.resize(crop, (256, 256), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def stranger(portrait) -> np.ndarray:
    """Somebody else: mirrored, darker and bluer."""
    tinted = portrait[:, ::-1].astype(np.float32) * (0.55, 0.7, 0.95)
    return np.ascontiguousarray(tinted.astype(np.uint8))


@pytest.fixture(scope="session")
def detected_once():
    """detect_faces, remembering what it answered: most tests ask about the same few pictures."""
    answers = {}

    def detect(image):
        key = image.shape, image.tobytes()
        if key not in answers:
            answers[key] = detect_faces(image)
        return list(answers[key])

    return detect


@pytest.fixture(scope="session")
def nobody() -> np.ndarray:
    """A smooth field with noise: no cascade sees a face in it."""
    noise = np.random.default_rng(7).normal(120, 12, (96, 128, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def couple(portrait) -> np.ndarray:
    """A small face on the left (around 71, 46), a large one on the right (around 197, 80); 110 parts them."""
    canvas = np.full((136, 280, 3), 128, np.uint8)
    canvas[0:136, 0:110] = cv2.resize(portrait, (160, 160), interpolation=cv2.INTER_AREA)[0:136, 27:137]
    canvas[:, 110:] = portrait[0:136, 70:240]
    return canvas


@pytest.fixture(scope="session")
def pan(portrait) -> tuple[np.ndarray, np.ndarray]:
    """24 frames of 224x176 with a moving, zooming, noisy camera, and the 2x3 matrix portrait → frame of each."""
    random = np.random.default_rng(1)
    frames, cameras = [], []
    for index in range(24):
        share = index / 23
        zoom = 1.0 + 0.3 * share
        x, y = 157 + 18 * np.sin(4 * share), 88 - 10 * share
        camera = np.array([[zoom, 0, 112 - zoom * x], [0, zoom, 88 - zoom * y]])
        frame = cv2.warpAffine(portrait, camera, (224, 176), borderMode=cv2.BORDER_REFLECT)
        frames.append(np.clip(frame + random.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
        cameras.append(camera)
    return np.array(frames), np.array(cameras)


@pytest.fixture(scope="session")
def crossing(portrait, stranger) -> np.ndarray:
    """10 frames of 304x152: on the left somebody comes nearer, on the right somebody goes away; 152 parts them.

    In the first frame the right face is the larger one, and so it is over all frames together; in the last the left.
    """
    frames = []
    for index in range(10):
        share = index / 9
        frame = np.full((152, 304, 3), 128, np.uint8)
        for left, person, middle, zoom in (
            (0, portrait, (157, 80), 0.72 + 0.42 * share),
            (152, stranger, (98, 80), 1.25 - 0.46 * share),
        ):
            camera = np.array([[zoom, 0, 76 - zoom * middle[0]], [0, zoom, 76 - zoom * middle[1]]])
            frame[:, left : left + 152] = cv2.warpAffine(person, camera, (152, 152), borderMode=cv2.BORDER_REFLECT)
        frames.append(frame)
    return np.array(frames)
