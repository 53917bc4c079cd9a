"""The plain C launchers: what is missing or negative is an error status with a sentence, an empty batch is done."""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path

import contract
import pytest

from guide_fast.kernels import _extension

PROGRAM = r"""
#include <cstdio>
#include <vector>

#include "guide_fast.h"

static std::vector<char> memory(1 << 20);  // zeroed: float32, start 0, weight 0
static void* at = memory.data();
static float* f = reinterpret_cast<float*>(memory.data());

static void say(const char* launcher, const char* what, gf_status status) {
  std::printf("[\"%s\", \"%s\", %d, \"%s\"]\n", launcher, what, int(status), status == GF_OK ? "" : gf_last_error());
}

// `good` fits; `empty`, `negative`, `missing` change it.
template <class A, class Empty, class Negative, class Missing>
void ask(const char* name, gf_status (*run)(const A*), A good, Empty empty, Negative negative, Missing missing) {
  say(name, "null", run(nullptr));
  say(name, "good", run(&good));
  A changed = good;
  say(name, "empty", (empty(changed), run(&changed)));
  changed = good;
  say(name, "negative", (negative(changed), run(&changed)));
  changed = good;
  say(name, "missing", (missing(changed), run(&changed)));
  const A nothing{};
  say(name, "zeros", run(&nothing));
}

#define ASK(launcher, good, empty, negative, missing) \
  ask(#launcher, launcher, good, [](auto& a) { empty; }, [](auto& a) { negative; }, [](auto& a) { missing; })

int main() {
  gf_set_num_threads(1);
  gf_bias_act act{};
  act.outer = 2, act.channels = 3, act.inner = 4, act.x = at, act.y = at;
  ASK(gf_bias_act_cpu, act, a.outer = 0, a.inner = -1, a.y = nullptr);
  gf_bias_act_backward gact{};
  gact.outer = 2, gact.channels = 3, gact.inner = 4, gact.gy = at, gact.y = at, gact.gx = at;
  ASK(gf_bias_act_backward_cpu, gact, a.outer = 0, a.channels = -1, a.gx = nullptr);

  gf_face_crop crop{};
  crop.batch = 1, crop.x = at, crop.y = at;
  crop.rows = crop.columns = {4, 2, 2, reinterpret_cast<int32_t*>(at), f};
  ASK(gf_face_crop_cpu, crop, a.batch = 0, a.rows.out = -2, a.columns.start = nullptr);

  gf_feature_distance distance{};
  distance.batch = 1, distance.taps = 1, distance.eps = 1, distance.partial = f, distance.out = f, distance.gout = f;
  distance.tap[0].channels = 3, distance.tap[0].pixels = 5, distance.tap[0].a = at, distance.tap[0].b = at;
  ASK(gf_feature_distance_cpu, distance, a.batch = 0, a.tap[0].pixels = -5, a.out = nullptr);
  ASK(gf_feature_distance_backward_cpu, distance, a.batch = 0, a.batch = -1, a.gout = nullptr);

  static int32_t tensor[] = {0};
  static int64_t start[] = {0}, size[] = {4};
  static float* parameters[] = {f};
  static const void* gradients[] = {f};
  gf_fused_adam adam{};
  adam.chunks = 1, adam.chunk_size = 8, adam.chunk_tensor = tensor, adam.chunk_start = start, adam.size = size;
  adam.parameter = adam.exp_avg = adam.exp_avg_sq = parameters, adam.gradient = gradients;
  ASK(gf_fused_adam_cpu, adam, a.chunks = 0, a.chunk_size = -8, a.exp_avg = nullptr);

  gf_haar wavelet{};
  wavelet.n = 1, wavelet.channels = 2, wavelet.h = 3, wavelet.w = 4, wavelet.x = at, wavelet.y = f + 1000;
  ASK(gf_haar_cpu, wavelet, a.n = 0, a.h = -3, a.x = nullptr);
  gf_haar_backward gwavelet{};
  gwavelet.n = 1, gwavelet.channels = 2, gwavelet.h = 3, gwavelet.w = 4, gwavelet.gy = at, gwavelet.x = at;
  gwavelet.gx = f + 1000, gwavelet.gstyle = f + 2000;
  ASK(gf_haar_backward_cpu, gwavelet, a.n = 0, a.w = -3, a.x = nullptr);

  gf_identity_loss loss{};
  loss.rows = 2, loss.width = 3, loss.a = at, loss.b = at, loss.loss = f + 100, loss.eps = 1;
  ASK(gf_identity_loss_cpu, loss, a.rows = 0, a.width = -1, a.loss = nullptr);

  gf_modulated_conv2d_weight weight{};
  weight.out_channels = 2, weight.in_channels = 3, weight.kernel = 3, weight.weight = at, weight.packed = f + 1000;
  ASK(gf_modulated_conv2d_weight_cpu, weight, , a.in_channels = -3, a.packed = nullptr);
  gf_modulated_conv2d conv{};
  conv.n = 1, conv.in_channels = 3, conv.out_channels = 2, conv.height = 4, conv.width = 5, conv.kernel = 3;
  conv.up = 2, conv.x = at, conv.packed = at, conv.style = at, conv.z = f + 1000, conv.y = f + 2000;
  ASK(gf_modulated_conv2d_cpu, conv, a.n = 0, a.height = -4, a.z = nullptr);

  gf_modulated_conv2d_finish finish{};
  finish.n = 1, finish.channels = 3, finish.pixels = 5, finish.z = f, finish.y = f + 1000;
  ASK(gf_modulated_conv2d_finish_cpu, finish, a.n = 0, a.pixels = -5, a.y = nullptr);
  gf_modulated_conv2d_finish_backward gfinish{};
  gfinish.n = 1, gfinish.channels = 3, gfinish.pixels = 5, gfinish.gy = f, gfinish.y = f, gfinish.g = f + 1000;
  ASK(gf_modulated_conv2d_finish_backward_cpu, gfinish, a.n = 0, a.channels = -3, a.gy = nullptr);
  gf_modulated_conv2d_scale_backward gscale{};
  gscale.n = 1, gscale.channels = 3, gscale.pixels = 5, gscale.t = f, gscale.x = f, gscale.gstyle = f + 1000;
  ASK(gf_modulated_conv2d_scale_backward_cpu, gscale, a.n = 0, a.pixels = -5, a.x = nullptr);

  gf_modulated_conv2d_winograd tiles{};
  tiles.n = 1, tiles.in_channels = 3, tiles.out_channels = 2, tiles.height = 4, tiles.width = 5, tiles.x = f;
  tiles.weight = f, tiles.y = f + 1000, tiles.scratch = f + 2000, tiles.gain = 1, tiles.clamp = -1;
  ASK(gf_modulated_conv2d_winograd_cpu, tiles, a.n = 0, a.width = -5, a.scratch = nullptr);

  gf_separable_conv2d layer{};
  layer.n = 1, layer.inputs = 3, layer.outputs = 2, layer.h = 4, layer.w = 5, layer.x = at, layer.pointwise = at;
  layer.style = at, layer.y = f + 1000;
  ASK(gf_separable_conv2d_cpu, layer, a.n = 0, a.outputs = -2, a.style = nullptr);
  gf_separable_conv2d_backward glayer{};
  glayer.n = 1, glayer.inputs = 3, glayer.outputs = 2, glayer.h = 4, glayer.w = 5, glayer.gy = at, glayer.y = at;
  glayer.x = at, glayer.pointwise = at, glayer.style = at, glayer.gx = f + 1000;
  ASK(gf_separable_conv2d_backward_cpu, glayer, a.n = 0, a.inputs = -2, a.gy = nullptr);

  gf_triplane_scene scene{};
  scene.batch = 1, scene.rays = 2, scene.height = 4, scene.width = 4, scene.box_warp = 1, scene.planes = at;
  scene.origins = f, scene.directions = f, scene.w1 = at, scene.b1 = at, scene.w2 = at, scene.b2 = at;
  gf_triplane_render render{};
  render.scene = scene, render.coarse = 4, render.near_end = f, render.far_end = f, render.features = f + 10000;
  render.depth = f + 20000, render.total = f + 30000, render.depths = f + 40000;
  ASK(gf_triplane_render_cpu, render, a.scene.batch = 0, a.scene.rays = -2, a.depths = nullptr);
  gf_triplane_render_backward grender{};
  grender.scene = scene, grender.samples = 4, grender.gfeatures = at, grender.gdepth = f, grender.gtotal = f;
  grender.depths = f, grender.gplanes = f + 10000;
  ASK(gf_triplane_render_backward_cpu, grender, a.scene.rays = 0, a.scene.batch = -1, a.scene.w1 = nullptr);

  gf_upfirdn2d filter{};
  filter.n = 1, filter.c = 2, filter.in_h = filter.in_w = filter.out_h = filter.out_w = 4, filter.x = at;
  filter.filter = f, filter.y = f + 1000, filter.filter_h = filter.filter_w = 2;
  filter.up_x = filter.up_y = filter.down_x = filter.down_y = 1;
  ASK(gf_upfirdn2d_cpu, filter, a.n = 0, a.c = -4, a.filter = nullptr);
}
"""
INVALID, UNSUPPORTED = 1, 2  # gf_status
# a weight, a sum have no batch
WITHOUT_BATCH = {"gf_modulated_conv2d_weight_cpu"}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, tuple[int, str]]]:
    """launcher -> what was asked -> status, sentence."""
    contract.require_extension()
    folder: Path = tmp_path_factory.mktemp("launchers")
    (folder / "ask.cpp").write_text(PROGRAM, encoding="utf-8")
    library = _extension.library_folder()
    command = ["c++", "-std=c++20", f"-I{contract.ROOT / 'csrc' / 'include'}", str(folder / "ask.cpp")]
    command += ["-o", str(folder / "ask"), str(library / _extension.CORE), f"-Wl,-rpath,{library}"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([folder / "ask"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for line in done.stdout.splitlines():
        launcher, what, status, sentence = json.loads(line)
        found.setdefault(launcher, {})[what] = (status, sentence)
    return found


def launchers(device: str) -> set[str]:
    """What the headers declare for it."""
    headers = (contract.ROOT / "csrc" / "include" / "guide_fast").glob("*.h")
    words = " ".join(path.read_text(encoding="utf-8") for path in headers).replace("(", " ").split()
    return {word for word in words if word.startswith("gf_") and word.endswith(f"_{device}")}


def test_every_launcher_is_asked(answers: dict[str, dict[str, tuple[int, str]]]) -> None:
    assert answers.keys() == launchers("cpu")


def test_cuda_launchers_refuse_null() -> None:
    contract.require_extension()
    library = ctypes.CDLL(str(_extension.library_folder() / _extension.CORE))
    expected = INVALID if library.gf_cuda_built() else UNSUPPORTED
    assert {getattr(library, name)(None, None) for name in sorted(launchers("cuda"))} == {expected}


@pytest.mark.parametrize("what", ["null", "negative", "missing"])
def test_wrong_arguments_are_an_error_status(what: str, answers: dict[str, dict[str, tuple[int, str]]]) -> None:
    for launcher, asked in answers.items():
        status, sentence = asked[what]
        assert (status, sentence.startswith(f"{launcher} has ")) == (INVALID, True), (launcher, asked[what])


def test_arguments_that_fit_are_taken(answers: dict[str, dict[str, tuple[int, str]]]) -> None:
    assert {launcher: asked["good"] for launcher, asked in answers.items() if asked["good"][0]} == {}


def test_empty_batch_is_done(answers: dict[str, dict[str, tuple[int, str]]]) -> None:
    wrong = {launcher: asked["empty"] for launcher, asked in answers.items() if asked["empty"][0]}
    assert wrong.keys() <= WITHOUT_BATCH


def test_zeroed_struct_crashes_no_launcher(answers: dict[str, dict[str, tuple[int, str]]]) -> None:
    assert {asked["zeros"][0] for asked in answers.values()} <= {0, INVALID}
