#include "os/shared_memory.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace hs::os {

namespace {

void* map(int file, size_t bytes, int flags) {
  // The C library's own names may be intercepted by the very library this runs in.
  const long address = syscall(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
  return address == -1 ? nullptr : reinterpret_cast<void*>(address);
}

// Programs count on low descriptors being theirs, and some walk all up to 255.
int move_out_of_the_way(int file) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t top = limit.rlim_cur < 1024 ? limit.rlim_cur : 1024;
  if (top < 64) return file;
  const int moved = static_cast<int>(syscall(SYS_fcntl, file, F_DUPFD_CLOEXEC, static_cast<int>(top - 16)));
  if (moved < 0) return file;
  close_file(file);
  return moved;
}

}  // namespace

int create_file(const char* path) {
  return static_cast<int>(
      syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
}

int create_memory_file(const char* name, MemoryFile& remembered) {
  const int file = static_cast<int>(syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (file < 0) return kNoFile;
  remembered.number = move_out_of_the_way(file);
  struct stat status = {};
  fstat(remembered.number, &status);
  remembered.device = status.st_dev;
  remembered.inode = status.st_ino;
  return remembered.number;
}

bool is_still(const MemoryFile& remembered) {
  struct stat status = {};
  return remembered.number != kNoFile && fstat(remembered.number, &status) == 0 && status.st_dev == remembered.device &&
         status.st_ino == remembered.inode;
}

void seal(int file) {
  constexpr int kSizeAndMore = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
#ifdef F_SEAL_FUTURE_WRITE
  if (syscall(SYS_fcntl, file, F_ADD_SEALS, kSizeAndMore | F_SEAL_FUTURE_WRITE) == 0) return;
#endif
  syscall(SYS_fcntl, file, F_ADD_SEALS, kSizeAndMore);
}

size_t largest_file_bytes() {
  rlimit limit = {};
  return getrlimit(RLIMIT_FSIZE, &limit) == 0 ? limit.rlim_cur : SIZE_MAX;
}

bool resize(int file, size_t bytes) {
  return bytes <= largest_file_bytes() && syscall(SYS_ftruncate, file, bytes) == 0;
}

void close_file(int file) { syscall(SYS_close, file); }

long read_file(const char* path, void* into, size_t bytes) {
  const int file = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
  if (file < 0) return -1;
  const long count = syscall(SYS_read, file, into, bytes);
  close_file(file);
  return count;
}

bool file_exists(const char* path) { return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0; }

void* map_file(int file, size_t bytes) { return map(file, bytes, MAP_SHARED); }

void* map_beyond(void* mapping, size_t mapping_bytes, size_t bytes) {
  constexpr size_t kPageBytes = 4096;
  // An old size of 0 makes a second mapping of what is shared.
  void* last_page = static_cast<char*>(mapping) + mapping_bytes - kPageBytes;
  const long result = syscall(SYS_mremap, last_page, 0, kPageBytes + bytes, MREMAP_MAYMOVE);
  if (result == -1) return nullptr;
  auto* again = reinterpret_cast<char*>(result);
  unmap(again, kPageBytes);
  return again + kPageBytes;
}

void* map_private(size_t bytes) { return map(-1, bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE); }

bool make_accessible(void* address, size_t bytes) {
  return syscall(SYS_mprotect, address, bytes, PROT_READ | PROT_WRITE) == 0;
}

void make_inaccessible(void* address, size_t bytes) { syscall(SYS_mprotect, address, bytes, PROT_NONE); }

size_t largest_address_space_bytes() {
  rlimit limit = {};
  return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur : SIZE_MAX;
}

bool address_space_is_limited() { return largest_address_space_bytes() != SIZE_MAX; }

void unmap(void* address, size_t bytes) { syscall(SYS_munmap, address, bytes); }

bool back_page(void* page) { return syscall(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, page) == 0; }

}  // namespace hs::os
