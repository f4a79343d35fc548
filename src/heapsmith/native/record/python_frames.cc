#include "record/python_frames.h"

#include <dlfcn.h>
#include <string.h>

#include "base/atomic.h"
#include "base/bounded_lock.h"
#include "base/compiler.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "record/recording.h"
#include "record/texts.h"
#include "record/unwind.h"
#include "wire/region.h"

namespace hs::record {

namespace {

// Where fields lie, in bytes.
struct Layout {
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

constexpr Layout k311 = {56, true, 8, 32, 48, 56, 69, 68, 112, 128, 136, 72, 184, 48, 72};
constexpr Layout k312 = {56, true, 0, 0, 8, 56, 70, 0, 112, 128, 136, 68, 192, 40, 56};
constexpr uint8_t kOwnedByStack = 3;

// Of 3.13's table for debuggers, counted in words: thread_state.current_frame and so on.
constexpr uint32_t kStateFrameWord = 23;
constexpr uint32_t kPreviousWord = 29;
constexpr uint32_t kExecutableWord = 30;
constexpr uint32_t kInstructionWord = 31;
constexpr uint32_t kOwnerWord = 33;
constexpr uint32_t kFileWord = 35;
constexpr uint32_t kNameWord = 37;
constexpr uint32_t kLinesWord = 38;
constexpr uint32_t kFirstLineWord = 39;
constexpr uint32_t kStartWord = 43;

Layout layout;
uint32_t is_known = 0;
void* (*own_state)() = nullptr;
const void* code_type = nullptr;

constexpr uint32_t kSizeOffset = 16;
constexpr uint32_t kBytesOffset = 32;
constexpr uint32_t kStateOffset = 32;
constexpr uint32_t kTypeOffset = 8;

// Code objects that were seen: address, and what tells it from another one at the same place later.
struct SeenCode {
  uint64_t address;
  uint64_t identity;
  uint32_t number;  // from 1
  uint32_t padding;
};
constexpr uint32_t kSeenBits = 17;
SeenCode* seen_codes = nullptr;
BoundedLock codes_lock;

template <class T>
HS_FAST_PATH T field(const void* object, uint32_t offset) {
  T value;
  memcpy(&value, static_cast<const char*>(object) + offset, sizeof value);
  return value;
}

uint64_t identity_of(const void* code) {
  return field<uint64_t>(code, layout.code_name) * 31 + field<uint64_t>(code, layout.code_file) * 7 +
         field<uint64_t>(code, layout.code_lines) + field<uint32_t>(code, layout.code_first_line);
}

void put_string(const void* string, uint32_t& at, uint32_t& bytes) {
  const auto state = field<uint32_t>(string, kStateOffset);
  const auto count = static_cast<uint32_t>(field<uint64_t>(string, kSizeOffset));
  const uint32_t width = state >> 2 & 7u;
  const bool is_compact = (state & 0x20) != 0;
  const bool is_ascii = (state & 0x40) != 0;
  at = bytes = 0;
  if (!is_compact || width == 0 || count > 65536) return;
  const char* characters = static_cast<const char*>(string) + (is_ascii ? layout.ascii_bytes : layout.compact_bytes);
  if (is_ascii) {
    bytes = count;
    at = put_text(characters, count);
  } else {
    at = put_characters(characters, width, count, bytes);
  }
  if (at == UINT32_MAX) at = bytes = 0;
}

// Copies what tells a person which code this is; answers its number, 0 where there is no room.
uint32_t note_code(const void* code) {
  wire::RecordingHeader& header = *recording.header;
  const uint32_t index = header.codes_used;
  if (index >= wire::kCodeCapacity) return 0;
  auto* codes = reinterpret_cast<wire::Code*>(reinterpret_cast<char*>(&header) + wire::kCodesOffsetBytes);
  if (index % (wire::kPageBytes / sizeof(wire::Code)) == 0 && !os::back_page(&codes[index])) return 0;
  wire::Code& into = codes[index];
  into = {};
  put_string(field<const void*>(code, layout.code_name), into.name_at, into.name_bytes);
  put_string(field<const void*>(code, layout.code_file), into.file_at, into.file_bytes);
  const void* lines = field<const void*>(code, layout.code_lines);
  const auto bytes = static_cast<uint32_t>(field<uint64_t>(lines, kSizeOffset));
  into.lines_at = put_text(static_cast<const char*>(lines) + kBytesOffset, bytes);
  into.lines_bytes = into.lines_at == UINT32_MAX ? 0 : bytes;
  into.first_line = field<uint32_t>(code, layout.code_first_line);
  store_release(header.codes_used, index + 1);
  return index + 1;
}

HS_SLOW_PATH uint32_t number_slowly(const void* code) {
  const os::KeepErrno keep;
  if (!codes_lock.lock(os::yield_processor)) return 0;
  uint32_t number = 0;
  if (seen_codes == nullptr) {
    seen_codes = static_cast<SeenCode*>(os::map_private(sizeof(SeenCode) << kSeenBits));
  }
  if (seen_codes != nullptr) {
    const auto address = reinterpret_cast<uint64_t>(code);
    uint64_t at = (address >> 4) * 0x9E3779B97F4A7C15u >> (64 - kSeenBits);
    while (seen_codes[at].address != 0 && seen_codes[at].address != address) at = (at + 1) & ((1u << kSeenBits) - 1);
    SeenCode& seen = seen_codes[at];
    if (seen.address == address && seen.identity == identity_of(code)) {
      number = seen.number;
    } else if ((number = note_code(code)) != 0) {
      seen.number = number;
      seen.identity = identity_of(code);
      store_release(seen.address, address);
    }
  }
  codes_lock.unlock();
  return number;
}

HS_FAST_PATH uint32_t number_of(const void* code) {
  const auto address = reinterpret_cast<uint64_t>(code);
  const SeenCode* table = load_relaxed(seen_codes);
  if (HS_LIKELY(table != nullptr)) {
    const uint64_t at = (address >> 4) * 0x9E3779B97F4A7C15u >> (64 - kSeenBits);
    if (HS_LIKELY(load_acquire(table[at].address) == address) && HS_LIKELY(table[at].identity == identity_of(code))) {
      return table[at].number;
    }
  }
  return number_slowly(code);
}

bool lay_out_from_table(const uint64_t* words) {
  if (memcmp(words, "xdebugpy", 8) != 0 || words[2] != 0) return false;
  const auto at = [&](uint32_t word) { return static_cast<uint32_t>(words[word]); };
  layout = {at(kStateFrameWord),
            false,
            0,
            at(kExecutableWord),
            at(kPreviousWord),
            at(kInstructionWord),
            at(kOwnerWord),
            0,
            at(kFileWord),
            at(kNameWord),
            at(kLinesWord),
            at(kFirstLineWord),
            at(kStartWord),
            40,
            56};
  // All of these are small offsets, or the table is another one.
  for (uint32_t word = kStateFrameWord; word <= kStartWord; ++word) {
    if (words[word] > 4096) return false;
  }
  return true;
}

}  // namespace

const void* innermost_frame() {
  if (load_acquire(is_known) == 0) return nullptr;
  const void* state = own_state();
  if (state == nullptr) return nullptr;
  const void* frame = field<const void*>(state, layout.state_frame);
  return layout.is_indirect && frame != nullptr ? field<const void*>(frame, layout.indirect_frame) : frame;
}

uint64_t instruction_of(const void* frame) { return field<uint64_t>(frame, layout.instruction); }

bool is_same_chain(const Chain::Link* links, uint32_t count) {
  const uint32_t instruction = layout.instruction;
  const uint32_t previous = layout.previous;
  for (uint32_t at = 0; at < count; ++at) {
    const void* frame = links[at].frame;
    if (field<uint64_t>(frame, instruction) != links[at].instruction ||
        field<const void*>(frame, previous) != links[at + 1].frame) {
      return false;
    }
  }
  return true;
}

uint32_t walk_python(const void* innermost, PythonFrame* into, uint32_t capacity, Chain& chain) {
  uint32_t count = 0;
  chain.count = 0;
  chain.is_whole = true;
  const void* frame = innermost;
  while (frame != nullptr) {
    if (count == capacity || chain.count == Chain::kCapacity) {
      chain.is_whole = false;
      break;
    }
    const uint64_t instruction = instruction_of(frame);
    chain.links[chain.count++] = {frame, instruction};
    const bool is_between = layout.entry == 0 && field<uint8_t>(frame, layout.owner) >= kOwnedByStack;
    if (is_between) {
      // No function of the program's: the loop was entered here.
      if (count > 0) into[count - 1].is_entry = true;
    } else {
      const void* code = field<const void*>(frame, layout.code);
      if (code == nullptr || field<const void*>(code, kTypeOffset) != code_type) {
        chain.is_whole = false;
        break;
      }
      const uint64_t start = reinterpret_cast<uint64_t>(code) + layout.code_start;
      const uint64_t offset = instruction >= start ? instruction - start : 0;
      into[count++] = {wire::kFramePythonBit | uint64_t{number_of(code)} << 32 | (offset & 0xffffffffu),
                       layout.entry != 0 && field<uint8_t>(frame, layout.entry) != 0};
    }
    frame = field<const void*>(frame, layout.previous);
  }
  chain.links[chain.count] = {frame, 0};
  return count;
}

void find_python_frames(void* library, uint32_t version) {
  const uint32_t minor = version >> 16 & 0xff;
  if (version >> 24 != 3) return;
  const auto find = [&](const char* name) { return dlsym(library == nullptr ? RTLD_DEFAULT : library, name); };
  own_state = reinterpret_cast<void* (*)()>(find("PyGILState_GetThisThreadState"));
  code_type = find("PyCode_Type");
  const void* eval = find("_PyEval_EvalFrameDefault");
  const auto* runtime = static_cast<const uint64_t*>(find("_PyRuntime"));
  dlerror();
  bool is_laid_out = true;
  if (minor == 11) {
    layout = k311;
  } else if (minor == 12) {
    layout = k312;
  } else {
    is_laid_out = minor == 13 && runtime != nullptr && lay_out_from_table(runtime);
  }
  if (eval != nullptr) tell_eval(eval);
  if (is_laid_out && own_state != nullptr && code_type != nullptr) store_release(is_known, 1u);
}

void forget_codes() {
  codes_lock.reset();
  if (seen_codes != nullptr) os::unmap(seen_codes, sizeof(SeenCode) << kSeenBits);
  seen_codes = nullptr;
}

}  // namespace hs::record
