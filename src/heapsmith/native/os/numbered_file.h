// Files of this process in a directory that it shares with others: DIRECTORY/PID.NUMBER.suffix.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::os {

inline constexpr size_t kPathBytes = 512;

// Appends, and answers the new end; what does not fit is left out.
char* append(char* at, const char* end, const char* text);
char* append(char* at, const char* end, uint32_t number);

// Makes the file with the first number that is free: a process has one for every program it executes. Answers its
// descriptor and path, or kNoFile where the directory cannot be used.
int create_numbered_file(const char* directory, const char* suffix, char (&path)[kPathBytes]);

}  // namespace hs::os
