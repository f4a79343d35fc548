#include "heap/next.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "probe/thread.h"

extern "C" const char* gnu_get_libc_version(void) __attribute__((weak));
extern "C" decltype(dladdr1) dladdr1 __attribute__((weak));

namespace hs {

constinit NextFunctions NextHeap::next = {NextHeap::first_allocate, NextHeap::first_allocate_zeroed,
                                          NextHeap::first_reallocate, NextHeap::first_deallocate};
constinit NextFunctions NextHeap::found_functions = {};
alignas(16) char NextHeap::early_blocks[kEarlyBytes];

namespace {

// Found: what the functions are is known. Ready: they are in use.
bool is_found = false;
bool is_ready = false;

size_t early_used_bytes = 0;
constexpr size_t kEarlyHeaderBytes = 16;

struct ObjectSearch {
  const void* address;
  CodeRange code;
  char* path;
  size_t path_bytes;
};

// The range of a loaded object, from its own program headers.
CodeRange range_of(const dl_phdr_info& object) {
  CodeRange range = {UINTPTR_MAX, 0};
  for (int number = 0; number < object.dlpi_phnum; ++number) {
    const ElfW(Phdr) & header = object.dlpi_phdr[number];
    if (header.p_type != PT_LOAD) continue;
    const uintptr_t from = object.dlpi_addr + header.p_vaddr;
    if (from < range.begin) range.begin = from;
    if (from + header.p_memsz > range.end) range.end = from + header.p_memsz;
  }
  return range;
}

int match_object(dl_phdr_info* object, size_t, void* data) {
  auto& search = *static_cast<ObjectSearch*>(data);
  const CodeRange range = range_of(*object);
  if (!range.holds(search.address)) return 0;
  search.code = range;
  if (search.path != nullptr) strncpy(search.path, object->dlpi_name, search.path_bytes - 1);
  return 1;
}

CodeRange find_object(const void* address, char* path, size_t path_bytes) {
  ObjectSearch search = {address, {}, path, path_bytes};
  dl_iterate_phdr(match_object, &search);
  return search.code;
}

// TBB's malloc is a proxy: the allocator proper is a library beside it.
int match_partner(dl_phdr_info* object, size_t, void* data) {
  if (strstr(object->dlpi_name, "libtbbmalloc.so") == nullptr) return 0;
  *static_cast<CodeRange*>(data) = range_of(*object);
  return 1;
}

// Valgrind's tools that look after malloc redirect it wherever it is defined, by rewriting the code: what we pass on may be
// theirs or glibc's, and what the program frees may never come to us.
int match_redirector(dl_phdr_info* object, size_t, void* data) {
  constexpr char kPreload[] = "/vgpreload_";
  const char* name = strstr(object->dlpi_name, kPreload);
  if (name == nullptr || strncmp(name + sizeof kPreload - 1, "core", 4) == 0) return 0;
  auto& search = *static_cast<ObjectSearch*>(data);
  strncpy(search.path, object->dlpi_name, search.path_bytes - 1);
  return 1;
}

bool is_redirected(char* path, size_t path_bytes) {
  ObjectSearch search = {nullptr, {}, path, path_bytes};
  return dl_iterate_phdr(match_redirector, &search) != 0;
}

// A program that takes the address of a function it does not define has one of its own for it: a jump to whoever does.
bool is_jump(const void* function) {
  Dl_info object;
  void* symbol = nullptr;
  // Without this function it cannot be told, as with musl; then nobody is taken to have a malloc of its own.
  if (dladdr1 == nullptr) return true;
  return dladdr1(function, &object, &symbol, RTLD_DL_SYMENT) != 0 && symbol != nullptr &&
         static_cast<const ElfW(Sym)*>(symbol)->st_shndx == SHN_UNDEF;
}

// The program's own function where it has one, which would be called without us, or what comes after us.
template <class Function>
bool find_next(const CodeRange& ours, Function& function, const char* name) {
  void* first = dlsym(RTLD_DEFAULT, name);
  const bool is_ours = first == nullptr || ours.holds(first) || is_jump(first);
  function = reinterpret_cast<Function>(is_ours ? dlsym(RTLD_NEXT, name) : first);
  return is_ours;
}

// A name that only glibc's own object can answer, in the object that answers malloc.
bool is_glibc(const NextFunctions& found) {
  return found.code.holds(reinterpret_cast<const void*>(&gnu_get_libc_version));
}

// Another object's function would hand out blocks that the allocator does not know.
template <class Function>
void find_own(const NextFunctions& found, const CodeRange& ours, Function& function, const char* name) {
  find_next(ours, function, name);
  if (!found.code.holds(reinterpret_cast<const void*>(function))) function = nullptr;
}

// While the allocator is at work for us; whether any ever came back to the exported names meanwhile.
__thread bool is_at_work;
bool comes_back = false;

class AtWork {
 public:
  AtWork() : before_(is_at_work) { is_at_work = true; }
  AtWork(const AtWork&) = delete;
  ~AtWork() { is_at_work = before_; }

 private:
  bool before_;
};

// Stands in front of a function of the allocator that may come back.
template <auto kFunction>
struct Framed;
template <class Result, class... Arguments, Result (*NextFunctions::*kFunction)(Arguments...)>
struct Framed<kFunction> {
  static inline Result (*inner)(Arguments...) = nullptr;
  static Result call(Arguments... arguments) {
    const AtWork at_work;
    return inner(arguments...);
  }
  static void put_before(NextFunctions& functions) {
    if (functions.*kFunction == nullptr) return;
    inner = functions.*kFunction;
    functions.*kFunction = call;
  }
};

}  // namespace

// Both answer false to the search itself: before the constructors have run there is one thread, so whoever comes
// while it is under way is part of it.
bool NextHeap::make_found() {
  static bool is_finding = false;
  if (HS_LIKELY(load_acquire(is_found))) return true;
  if (is_finding) return false;
  is_finding = true;
  find();
  is_finding = false;
  return true;
}

bool NextHeap::make_ready() {
  static bool is_preparing = false;
  if (HS_LIKELY(load_acquire(is_ready))) return true;
  if (is_preparing || !make_found()) return false;
  is_preparing = true;
  prepare();
  is_preparing = false;
  return true;
}

const NextFunctions& NextHeap::functions() {
  make_ready();
  return next;
}

void* NextHeap::first_allocate(size_t bytes) { return make_ready() ? next.allocate(bytes) : allocate_early(bytes); }

void* NextHeap::first_allocate_zeroed(size_t count, size_t bytes) {
  if (make_ready()) return next.allocate_zeroed(count, bytes);
  size_t whole;
  return __builtin_mul_overflow(count, bytes, &whole) ? nullptr : allocate_early(whole);
}

void* NextHeap::first_reallocate(void* block, size_t bytes) {
  return make_ready() ? next.reallocate(block, bytes) : nullptr;
}

void NextHeap::first_deallocate(void* block) {
  if (make_ready()) next.deallocate(block);
}

void NextHeap::find() {
  NextFunctions found = {};
  const CodeRange ours = find_object(&is_found, nullptr, 0);
  find_next(ours, found.allocate_zeroed, "calloc");
  find_next(ours, found.reallocate, "realloc");
  find_next(ours, found.deallocate, "free");
  find_next(ours, found.usable_bytes, "malloc_usable_size");
  found.is_blind = !find_next(ours, found.allocate, "malloc");
  found.code = find_object(reinterpret_cast<const void*>(found.allocate), found.path, sizeof found.path);
  found.is_blind |= is_redirected(found.path, sizeof found.path);
  found.has_glibc_headers = !found.is_blind && is_glibc(found);
  find_own(found, ours, found.memalign, "memalign");
  find_own(found, ours, found.aligned_alloc, "aligned_alloc");
  find_own(found, ours, found.posix_memalign, "posix_memalign");
  find_own(found, ours, found.valloc, "valloc");
  find_own(found, ours, found.pvalloc, "pvalloc");
  if (found.memalign == nullptr) find_next(ours, found.memalign, "memalign");
  if (strstr(found.path, "tbbmalloc_proxy") != nullptr) dl_iterate_phdr(match_partner, &found.more_code);
  dlerror();  // what is not there is no error of the program's
  found_functions = found;
  store_release(is_found, true);
}

// Not while an allocator sets itself up and maps memory for that: asked for a block then, mimalloc 3 begins anew and
// forgets what it had.
void NextHeap::prepare() {
  const NextFunctions& found = found_functions;
  if (!found.has_glibc_headers && !found.is_blind && found.usable_bytes != nullptr) {
    // Some make what they need for this question with operator new, at the first time: not in the middle of a count.
    void* block = found.allocate(1);
    if (block != nullptr) found.usable_bytes(block);
    found.deallocate(block);
  }
  next = found;
  probe::has_fast_sizes = found.has_glibc_headers;
  store_release(is_ready, true);
  if (!found.has_glibc_headers && !found.is_blind) learn_whether_it_comes_back();
}

bool NextHeap::is_nested() {
  if (HS_LIKELY(!is_at_work)) return false;
  comes_back = true;
  return true;
}

// Asked once of each function, so that those who never come back pay nothing for those who do.
void NextHeap::learn_whether_it_comes_back() {
  {
    const AtWork at_work;
    void* block = next.allocate_zeroed(1, 1);
    void* moved = next.reallocate(block, 10000);
    next.deallocate(moved != nullptr ? moved : block);
    if (next.code.holds(reinterpret_cast<const void*>(next.memalign))) next.deallocate(next.memalign(4096, 100));
    if (next.posix_memalign != nullptr && next.posix_memalign(&block, 4096, 100) == 0) next.deallocate(block);
  }
  if (!comes_back) return;
  Framed<&NextFunctions::allocate_zeroed>::put_before(next);
  Framed<&NextFunctions::reallocate>::put_before(next);
  Framed<&NextFunctions::memalign>::put_before(next);
  Framed<&NextFunctions::aligned_alloc>::put_before(next);
  Framed<&NextFunctions::posix_memalign>::put_before(next);
  Framed<&NextFunctions::valloc>::put_before(next);
  Framed<&NextFunctions::pvalloc>::put_before(next);
}

void NextHeap::see_all() {
  make_ready();
  next.is_blind = false;
  next.has_glibc_headers = is_glibc(next);
  probe::has_fast_sizes = next.has_glibc_headers;
}

void* NextHeap::allocate_early(size_t bytes) {
  const size_t rounded_bytes = (bytes + 15) / 16 * 16 + kEarlyHeaderBytes;
  if (rounded_bytes < bytes || rounded_bytes > kEarlyBytes) return nullptr;
  const size_t at = fetch_add_relaxed(early_used_bytes, rounded_bytes);
  if (at + rounded_bytes > kEarlyBytes) return nullptr;
  // The word before the block reads as no small glibc header.
  const size_t header[2] = {bytes, SIZE_MAX};
  static_assert(sizeof header == kEarlyHeaderBytes);
  memcpy(early_blocks + at, header, sizeof header);
  return early_blocks + at + kEarlyHeaderBytes;
}

size_t NextHeap::early_usable_bytes(const void* block) {
  size_t bytes = 0;
  memcpy(&bytes, static_cast<const char*>(block) - kEarlyHeaderBytes, sizeof bytes);
  return bytes;
}

}  // namespace hs
