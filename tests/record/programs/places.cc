// Allocates from known functions: a deep one, one whose frame has no fixed size, one that aligned its stack, a callback.
#include <alloca.h>

#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

extern "C" {

__attribute__((noinline)) void* leaf(size_t bytes) {
  void* volatile block = malloc(bytes);
  return block;
}

__attribute__((noinline)) void* with_alloca(size_t bytes, size_t room) {
  char* volatile scratch = static_cast<char*>(alloca(room));
  memset(scratch, 1, room);
  void* volatile block = leaf(bytes);
  return scratch[0] == 1 ? block : nullptr;
}

__attribute__((noinline)) void* with_aligned(size_t bytes) {
  alignas(64) volatile char lines[128] = {1};
  void* volatile block = leaf(bytes);
  return lines[0] == 1 ? block : nullptr;
}

__attribute__((noinline)) void* descend(size_t bytes, int depth) {
  void* volatile block = depth == 0 ? leaf(bytes) : descend(bytes, depth - 1);
  return block;
}

__attribute__((noinline)) int compare(const void*, const void*) {
  static bool is_first = true;
  if (is_first) free(leaf(40004));
  is_first = false;
  return 0;
}
}

int main() {
  for (int round = 0; round < 3; ++round) {
    free(leaf(40000));
    free(with_alloca(40001, 100 + 1000 * static_cast<size_t>(round)));
    free(with_aligned(40002));
    free(descend(40003, 20 + round));
  }
  int numbers[3] = {3, 1, 2};
  qsort(numbers, 3, sizeof numbers[0], compare);
  std::thread([] { free(leaf(40005)); }).join();
  return 0;
}
