// Bytes of any length beside the records: names of code objects, marks.
#pragma once

#include <stdint.h>

namespace hs::record {

// Copies into the file's texts; answers where, or UINT32_MAX where there is no room.
uint32_t put_text(const void* bytes, uint32_t count);
// The same, for the UTF-8 of characters of 1, 2 or 4 bytes each; `bytes` becomes how many were written.
uint32_t put_characters(const void* characters, uint32_t width, uint32_t count, uint32_t& bytes);
void texts_fork_child();

}  // namespace hs::record
