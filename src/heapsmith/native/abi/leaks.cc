// The leak file: what is still live when the process ends, by size class, if the environment names a file for
// it.
//
// The first process to come takes the name itself, the others take NAME.PID. Blocks that other threads hold
// in their caches count as live: a process that ends while threads run has an upper bound.
#include <fcntl.h>
#include <stdlib.h>

#include "abi/heap.h"
#include "os/system_call.h"

namespace {

using hs::SpecHeap;

constexpr char kVariable[] = "HEAPSMITH_LEAKS";
int file = -1;
long owner = 0;

class Line {
 public:
  Line& add(const char* words) {
    while (*words && length_ < sizeof text_) text_[length_++] = *words++;
    return *this;
  }
  Line& add(uint64_t number) {
    char digits[21];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do digits[--at] = static_cast<char>('0' + number % 10);
    while ((number /= 10) != 0);
    return add(digits + at);
  }
  const char* c_str() {
    text_[length_ < sizeof text_ ? length_ : sizeof text_ - 1] = 0;
    return text_;
  }
  void write_to(int to) const {
    hs::system_call(SYS_write, to, static_cast<long>(hs::address_of(text_)), static_cast<long>(length_));
  }

 private:
  char text_[4096];
  size_t length_ = 0;
};

int create(const char* path) {
  return static_cast<int>(hs::system_call(SYS_openat, AT_FDCWD, static_cast<long>(hs::address_of(path)),
                                          O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
}

// After the constructor of the heap (101), before everybody else's.
__attribute__((constructor(102))) void open_file() {
  const char* path = secure_getenv(kVariable);
  if (path == nullptr || *path == 0) return;
  owner = hs::system_call(SYS_getpid);
  file = create(path);
  if (file < 0) file = create(Line().add(path).add(".").add(static_cast<uint64_t>(owner)).c_str());
}

__attribute__((destructor(101))) void write_file() {
  if (file < 0 || hs::system_call(SYS_getpid) != owner) return;
  const auto out = SpecHeap::count_out_blocks();
  Line().add("class_bytes,blocks,bytes\n").write_to(file);
  for (unsigned index = 1; index < SpecHeap::Classes::index_count; index++) {
    if (out.blocks[index] == 0) continue;
    Line line;
    line.add(SpecHeap::Classes::bytes_of(index)).add(",").add(out.blocks[index]).add(",").add(out.bytes[index]);
    line.add("\n").write_to(file);
  }
  if (out.blocks[0] != 0) Line().add("larger,").add(out.blocks[0]).add(",").add(out.bytes[0]).add("\n").write_to(file);
  hs::system_call(SYS_close, file);
  file = -1;
}

}  // namespace
