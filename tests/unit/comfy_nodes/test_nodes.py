import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import comfy_nodes
from comfy_nodes import nodes, opencv

PACK = Path(comfy_nodes.__file__).parent
STANDIN = PACK.parent / "tests" / "standins" / "reactor_standin" / "__init__.py"


@pytest.fixture(autouse=True)
def _detection_is_asked_once(monkeypatch, detected_once):
    monkeypatch.setattr("comfy_nodes.swap.detect_faces", detected_once)


def reported(output):
    """The report of a detection, which other nodes and the history get alike."""
    (text,) = output["ui"]["text"]
    assert output["result"] == (text,)
    return json.loads(text)


def load_as_custom_node(init, name):
    """As ComfyUI a125cd84 does it, nodes.py, load_custom_node: the module is named by its path."""
    spec = importlib.util.spec_from_file_location(name, init)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clean_modules(monkeypatch):
    monkeypatch.setattr(sys, "modules", sys.modules)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_importing_the_pack_needs_the_standard_library_only():
    blocked = "import sys; sys.modules.update(dict.fromkeys(['cv2', 'numpy', 'torch', 'comfy'])); "
    program = (
        blocked + "import comfy_nodes as p; print(*[n.INPUT_TYPES() and k for k, n in p.NODE_CLASS_MAPPINGS.items()])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PACK.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["GatewayCpuFaceSwap", "GatewayFaceDetect", "GatewayUploadOutput"]


def test_the_pack_loads_from_a_folder_of_any_name(clean_modules, tmp_path, portrait):
    folder = tmp_path / "my face-nodes"
    folder.symlink_to(PACK)
    pack = load_as_custom_node(folder / "__init__.py", str(folder).replace(".", "_x_"))
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    detect = pack.NODE_CLASS_MAPPINGS["GatewayFaceDetect"]
    assert len(reported(detect().execute(image=portrait[np.newaxis], detector="opencv"))["faces"]) == 1


@pytest.mark.parametrize("broken", [None, types.ModuleType("cv2")])
def test_without_opencv_a_run_says_what_to_install(monkeypatch, portrait, broken):
    """OpenCV 5 can be imported, but has no cascades."""
    monkeypatch.setitem(sys.modules, "cv2", broken)
    opencv.load_cv2.cache_clear()
    try:
        with pytest.raises(opencv.OpenCVMissingError, match="pip install 'opencv-python-headless"):
            nodes.GatewayFaceDetect().execute(image=portrait[np.newaxis], detector="opencv")
    finally:
        opencv.load_cv2.cache_clear()


def test_opencv_threads_are_given_back():
    import cv2

    before = cv2.getNumThreads()
    with opencv.single_thread():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == before


def test_detected_faces_are_numbered_from_the_largest(couple):
    output = nodes.GatewayFaceDetect().execute(image=couple[np.newaxis].astype(np.float32) / 255, detector="opencv")
    report = reported(output)
    first, second = report["faces"]
    assert (first["index"], second["index"]) == (0, 1)
    assert first["width"] > second["width"]
    assert first["area"] == first["width"] * first["height"]
    assert first["x"] > 110 > second["x"] + second["width"] / 2
    assert (report["detector"], report["width"], report["height"]) == ("opencv", 280, 136)


def test_every_value_of_the_ui_output_is_a_list(nobody):
    output = nodes.GatewayFaceDetect().execute(image=nobody[np.newaxis], detector="opencv")
    assert reported(output)["faces"] == []
    assert all(isinstance(value, list) for value in output["ui"].values())


class FakeTensor:
    """Stands for a torch tensor on the CPU; unrealistic in all but detach, cpu, numpy."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.array


@pytest.fixture
def fake_comfyui(monkeypatch):
    """torch, comfy.utils and comfy.model_management with what nodes use of them."""
    seen = types.SimpleNamespace(ticks=[], checks=0)

    class ProgressBar:
        def __init__(self, total):
            pass

        def update_absolute(self, value, total=None):
            seen.ticks.append((value, total))

    def check():
        seen.checks += 1

    for name, members in {
        "torch": {"from_numpy": FakeTensor},
        "comfy": {},
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy.model_management": {"throw_exception_if_processing_interrupted": check},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def test_tensors_come_back_as_tensors_with_progress_and_interrupt(fake_comfyui, portrait, stranger):
    image = FakeTensor(portrait[np.newaxis].astype(np.float32) / 255)
    source = FakeTensor(stranger[np.newaxis].astype(np.float32) / 255)
    (swapped,) = nodes.GatewayCpuFaceSwap().execute(
        input_image=image, source_image=source, swap_model="cpu-preview", input_faces_index="0", source_faces_index="0"
    )
    assert isinstance(swapped, FakeTensor)
    assert np.abs(swapped.array - image.array).max() > 0.05
    assert fake_comfyui.ticks == [(1, 1), (0, 1)]
    assert fake_comfyui.checks == 1


def test_an_unswapped_tensor_is_the_same_tensor(fake_comfyui, nobody):
    image = FakeTensor(nobody[np.newaxis].astype(np.float32) / 255)
    assert nodes.GatewayCpuFaceSwap().execute(input_image=image, source_image=image)[0] is image


def test_the_standin_swaps_and_logs_like_reactor(clean_modules, capsys, portrait, stranger):
    standin = load_as_custom_node(STANDIN, "reactor_standin_under_test")
    assert sorted(standin.NODE_CLASS_MAPPINGS) == [
        "ReActorFaceBoost",
        "ReActorFaceSwap",
        "ReActorFaceSwapOpt",
        "ReActorOptions",
    ]
    for handler in standin._logger.handlers:
        handler.setStream(sys.stdout)
    image = portrait[np.newaxis].astype(np.float32) / 255
    node = standin.NODE_CLASS_MAPPINGS["ReActorFaceSwap"]()
    assert node.INPUT_TYPES()["required"]["swap_model"] == (["cpu-preview"],)
    swapped, model, original = node.execute(input_image=image, source_image=stranger[np.newaxis])
    assert (swapped != image).any()
    assert (model, original is image) == (None, True)
    empty = np.zeros((1, 64, 64, 3), np.float32)
    assert node.execute(input_image=empty, source_image=stranger[np.newaxis])[0] is empty
    logged = capsys.readouterr().out
    assert "Cannot detect any Target, skipping swapping..." in logged
    assert logged.startswith("[ReActor] ")
