// The leak file: what is still live when the process ends, by size class, if the environment names a file for
// it.
//
// A heap that records origins adds the thread and the place that asked, as LIBRARY+OFFSET (for addr2line), and one line
// for each of these: "class_bytes" is then the requested size.
//
// The first process to come takes the name itself, the others take NAME.PID. Blocks that other threads hold
// in their caches count as live: a process that ends while threads run has an upper bound.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>

#include "abi/heap.h"
#include "os/secret.h"
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
  Line& add_hex(uint64_t number) {
    char digits[17];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do digits[--at] = "0123456789abcdef"[number & 15];
    while ((number >>= 4) != 0);
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

void write_classes() {
  const auto out = SpecHeap::count_out_blocks();
  Line().add("class_bytes,blocks,bytes\n").write_to(file);
  for (unsigned index = 1; index < SpecHeap::Classes::index_count; index++) {
    if (out.blocks[index] == 0) continue;
    Line line;
    line.add(SpecHeap::Classes::bytes_of(index)).add(",").add(out.blocks[index]).add(",").add(out.bytes[index]);
    line.add("\n").write_to(file);
  }
  if (out.blocks[0] != 0) Line().add("larger,").add(out.blocks[0]).add(",").add(out.bytes[0]).add("\n").write_to(file);
}

// Blocks of one size from one place in one thread; the last of the table takes what has no room.
struct Site {
  uint64_t caller;
  uint64_t tid;
  uint64_t requested_bytes;
  uint64_t blocks;
};
constexpr unsigned kSites = 4096;
constexpr unsigned kProbes = 64;

template <class Heap>
constexpr bool kRecords = requires { Heap::note_origin(nullptr, nullptr); };

template <class Heap>
void write_sites() {
  // Found in the file by `heapsmith run`: a library before this one would be everybody's caller.
  static const char mark[] __attribute__((used)) = "heapsmith: records origins";
  static Site sites[kSites + 1];
  Heap::visit_live([](const void*, size_t requested_bytes, auto origin) {
    uint64_t place = hs::mixed(origin.caller ^ origin.tid << 40 ^ requested_bytes * 31);
    for (unsigned probe = 0; probe < kProbes; ++probe, ++place) {
      Site& site = sites[place % kSites];
      if (site.blocks == 0) site = {origin.caller, origin.tid, requested_bytes, 0};
      if (site.caller != origin.caller || site.tid != origin.tid || site.requested_bytes != requested_bytes) continue;
      ++site.blocks;
      return;
    }
    ++sites[kSites].blocks;
    sites[kSites].requested_bytes += requested_bytes;  // in sum
  });
  Line().add("class_bytes,blocks,bytes,thread,place\n").write_to(file);
  for (unsigned index = 0; index < kSites; ++index) {
    const Site& site = sites[index];
    if (site.blocks == 0) continue;
    Line line;
    line.add(site.requested_bytes).add(",").add(site.blocks).add(",").add(site.blocks * site.requested_bytes).add(",");
    line.add(site.tid).add(",");
    Dl_info object = {};
    if (site.caller != 0 && dladdr(hs::pointer_to(site.caller), &object) != 0) {
      line.add(object.dli_fname).add("+0x").add_hex(site.caller - hs::address_of(object.dli_fbase));
    }
    line.add("\n").write_to(file);
  }
  const Site& rest = sites[kSites];
  if (rest.blocks == 0) return;
  Line().add("several,").add(rest.blocks).add(",").add(rest.requested_bytes).add(",,\n").write_to(file);
}

__attribute__((destructor(101))) void write_file() {
  if (file < 0 || hs::system_call(SYS_getpid) != owner) return;
  if constexpr (kRecords<SpecHeap>) {
    write_sites<SpecHeap>();
  } else {
    write_classes();
  }
  hs::system_call(SYS_close, file);
  file = -1;
}

}  // namespace
