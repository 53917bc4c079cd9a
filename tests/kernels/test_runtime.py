"""The library's own thread pool, where no torch brings one: ranges, nesting, several callers, fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import contract
import pytest

PROGRAM = r"""
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "guide_fast/status.h"
#include "parallel.h"

// Whether every index of [0, count) is visited once, `nested` inside a range of another loop.
bool visits_once(int64_t count, int64_t grain, int nested) {
  std::vector<std::atomic<int>> seen(count * nested);
  gf::parallel_for(0, nested, 1, [&](int64_t b, int64_t e) {
    for (int64_t outer = b; outer < e; ++outer)
      gf::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++seen[outer * count + i];
      });
  });
  for (auto& times : seen)
    if (times != 1) return false;
  return true;
}

bool in_a_child() {
  const pid_t child = fork();
  if (child == 0) _exit(visits_once(10000, 7, 1) ? 0 : 1);
  int status = 1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main() {
  gf_set_num_threads(4);
  int failed = 0;
  for (int64_t count : {1, 2, 3, 1000, 100003})
    for (int64_t grain : {1, 64, 1000000})
      if (!visits_once(count, grain, 1)) failed |= 1;
  if (!visits_once(0, 1, 1)) failed |= 1;
  if (!visits_once(100, 1, 50)) failed |= 2;
  std::atomic<int> good{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i)
    callers.emplace_back([&] {
      for (int turn = 0; turn < 200; ++turn) good += visits_once(100, 3, 1);
    });
  for (auto& caller : callers) caller.join();
  if (good != 8 * 200) failed |= 4;
  if (!in_a_child() || !in_a_child()) failed |= 8;
  if (!visits_once(1000, 3, 1)) failed |= 16;
  std::printf("%d\n", failed);
}
"""


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_pool_visits_every_index_once(sanitizer: str, tmp_path: Path) -> None:
    source, program = tmp_path / "pool.cpp", tmp_path / "pool"
    source.write_text(PROGRAM, encoding="utf-8")
    csrc = contract.ROOT / "csrc"
    includes = [f"-I{csrc / 'include'}", f"-I{csrc / 'common'}"]
    command = ["c++", "-std=c++20", "-O1", "-g", f"-fsanitize={sanitizer}", *includes]
    command += [str(source), str(csrc / "common" / "runtime.cpp"), "-o", str(program), "-pthread"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    environment = os.environ | {"TSAN_OPTIONS": "die_after_fork=0"}
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr[-3000:]


def test_native_module_works_in_a_forked_child() -> None:
    contract.require_extension()
    code = """
import os, numpy
from guide_fast import _native
_native.set_num_threads(3)
x = numpy.ones((4, 8, 64, 64), numpy.float32)
before = _native.bias_act(x)
child = os.fork()
if child == 0:
    os._exit(0 if (_native.bias_act(x) == before).all() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
