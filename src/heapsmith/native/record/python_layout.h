// Where the fields of CPython's frames and code objects lie, version by version; what is not known for sure is refused.
//
// 3.11 and 3.12 are as their headers have them. From 3.13 on an interpreter begins with a table for debuggers
// (`_Py_DebugOffsets`), whose own rows move from version to version.
#pragma once

#include <stdint.h>
#include <string.h>

namespace hs::record {

// In bytes.
struct PythonLayout {
  uint32_t state_frame;     // of the thread state: the innermost frame, or what leads to it
  bool is_indirect;         // through a C frame
  uint32_t indirect_frame;  // of that
  uint32_t code;            // of a frame
  uint32_t previous;
  uint32_t instruction;
  uint32_t owner;
  uint32_t entry;      // 0: an entry is told by its owner
  uint32_t code_file;  // of a code object
  uint32_t code_name;
  uint32_t code_lines;
  uint32_t code_first_line;
  uint32_t code_start;
  uint32_t ascii_bytes;  // of a string: before its characters
  uint32_t compact_bytes;
};

inline constexpr PythonLayout k311 = {56, true, 8, 32, 48, 56, 69, 68, 112, 128, 136, 72, 184, 48, 72};
inline constexpr PythonLayout k312 = {56, true, 0, 0, 8, 56, 70, 0, 112, 128, 136, 68, 192, 40, 56};

// Rows of the table, in words from its begin.
struct DebugRows {
  uint32_t state_frame;  // thread_state.current_frame
  uint32_t frame;        // interpreter_frame.size; then previous, executable, instr_ptr, localsplus, owner
  uint32_t code;         // code_object.size; then filename, name, qualname, linetable, firstlineno
  uint32_t code_start;   // code_object.co_code_adaptive
};
inline constexpr DebugRows kDebugRows[] = {{23, 28, 34, 43}, {26, 31, 39, 48}, {26, 39, 47, 56}};
inline constexpr uint32_t kFirstWithRows = 13;
inline constexpr uint32_t kLastWithRows = 15;

// Why frames cannot be read, for people; null where they can be. `words` is the interpreter's table, or null where it has none
// that can be found.
inline const char* lay_out(uint32_t version, const uint64_t* words, PythonLayout& layout) {
  constexpr const char* kOtherVersion = "only those of CPython 3.11 to 3.15 can be";
  constexpr const char* kNoTable = "the interpreter does not say where they lie";
  constexpr uint32_t kFirstFrozen = 0xC0;  // a release candidate: alphas and betas still move rows
  constexpr uint64_t kLargestOffsetBytes = 4096;
  const uint32_t minor = version >> 16 & 0xff;
  if (version >> 24 != 3 || minor < 11) return kOtherVersion;
  if (minor == 11 || minor == 12) {
    layout = minor == 11 ? k311 : k312;
    return nullptr;
  }
  if (minor > kLastWithRows) return kOtherVersion;
  if (words == nullptr || memcmp(words, "xdebugpy", 8) != 0 || words[1] != version || (version & 0xf0) < kFirstFrozen) {
    return kNoTable;
  }
  if (words[2] != 0) return "those of free-threaded builds are not understood";
  const DebugRows& rows = kDebugRows[minor - kFirstWithRows];
  bool is_sane = true;
  const auto at = [&](uint32_t row) {
    if (words[row] > kLargestOffsetBytes) is_sane = false;
    return static_cast<uint32_t>(words[row]);
  };
  layout = {at(rows.state_frame),
            false,
            0,
            at(rows.frame + 2),
            at(rows.frame + 1),
            at(rows.frame + 3),
            at(rows.frame + 5),
            0,
            at(rows.code + 1),
            at(rows.code + 3),
            at(rows.code + 4),
            at(rows.code + 5),
            at(rows.code_start),
            40,
            56};
  return is_sane ? nullptr : kNoTable;
}

}  // namespace hs::record
