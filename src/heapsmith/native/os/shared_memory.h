// Files in memory that outlive the process or are found through its descriptors.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::os {

inline constexpr int kNoFile = -1;

// A descriptor and what it stood for when it was ours.
struct MemoryFile {
  int number = kNoFile;
  uint64_t device = 0;
  uint64_t inode = 0;
};

// The raw system calls answer -1 on failure and leave errno set; callers keep it (KeepErrno).
int create_file(const char* path);
// Found by others as `name` in this process's descriptors; moved out of the range that programs use, closed by exec.
int create_memory_file(const char* name, MemoryFile& remembered);
// Whether the descriptor still is that file.
bool is_still(const MemoryFile& remembered);
// No one can change its size or map it for writing from here on.
void seal(int file);
bool resize(int file, size_t bytes);
// Beyond this ftruncate would not only fail but raise SIGXFSZ in the program.
size_t largest_file_bytes();
void close_file(int file);
long read_file(const char* path, void* into, size_t bytes);

bool file_exists(const char* path);

// Readable and writable, from the beginning of the file.
void* map_file(int file, size_t bytes);
// What follows in its file on a shared mapping, wherever there is room; by the mapping alone, since descriptors may be closed
// and names out of reach.
void* map_beyond(void* mapping, size_t mapping_bytes, size_t bytes);
void* map_private(size_t bytes);
bool make_accessible(void* address, size_t bytes);
void make_inaccessible(void* address, size_t bytes);
bool address_space_is_limited();
size_t largest_address_space_bytes();
void unmap(void* address, size_t bytes);
// Whether the page can be backed; asks through the kernel, so that a full file system answers instead of raising SIGBUS.
bool back_page(void* page);

}  // namespace hs::os
