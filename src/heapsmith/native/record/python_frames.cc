#include "record/python_frames.h"

#include <dlfcn.h>
#include <string.h>

#include "base/atomic.h"
#include "base/bounded_lock.h"
#include "base/compiler.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "record/python_layout.h"
#include "record/recording.h"
#include "record/texts.h"
#include "record/unwind.h"
#include "wire/region.h"

namespace hs::record {

namespace {

// A frame with this owner or a later one is none of the program's: the interpreter's loop was entered there.
constexpr uint8_t kOwnedByInterpreter = 3;
// A reference from the interpreter's stack has its kind in the lowest bits.
constexpr uintptr_t kReferenceKindBits = 7;

PythonLayout layout;
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
// Raised when a block is born where code was.
uint32_t codes_gone = 0;
// Whether code may have been seen at an address: small enough to be asked for every block.
uint64_t code_places[1024];

HS_FAST_PATH uint64_t& code_place_of(uint64_t address, uint64_t& bit) {
  const uint64_t hash = (address >> 4) * 0x9E3779B97F4A7C15u;
  bit = uint64_t{1} << (hash >> 58);
  return code_places[hash >> 48 & 1023u];
}

template <class T>
HS_FAST_PATH T field(const void* object, uint32_t offset) {
  T value;
  memcpy(&value, static_cast<const char*>(object) + offset, sizeof value);
  return value;
}

// Never 0, which says that it has gone.
uint64_t identity_of(const void* code) {
  const uint64_t sum = field<uint64_t>(code, layout.code_name) * 31 + field<uint64_t>(code, layout.code_file) * 7 +
                       field<uint64_t>(code, layout.code_lines) + field<uint32_t>(code, layout.code_first_line);
  return sum | 1;
}

// The code's place, or the empty one where it would be.
SeenCode* find_seen(SeenCode* table, uint64_t address) {
  uint64_t at = (address >> 4) * 0x9E3779B97F4A7C15u >> (64 - kSeenBits);
  for (;; at = (at + 1) & ((1u << kSeenBits) - 1)) {
    const uint64_t seen = load_acquire(table[at].address);
    if (seen == 0 || seen == address) return &table[at];
  }
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

// Whether a string is the text that was noted; one that is not ASCII is taken for another.
bool is_text(const void* string, uint32_t at, uint32_t bytes) {
  const char* noted = reinterpret_cast<const char*>(recording.header) + wire::kTextsOffsetBytes + at;
  return (field<uint32_t>(string, kStateOffset) & 0x60) == 0x60 && field<uint64_t>(string, kSizeOffset) == bytes &&
         memcmp(static_cast<const char*>(string) + layout.ascii_bytes, noted, bytes) == 0;
}

// Whether code at the place of other code reads the same: programs make the same code again and again.
bool is_noted_as(uint32_t number, const void* code) {
  const char* header = reinterpret_cast<const char*>(recording.header);
  const wire::Code& noted = reinterpret_cast<const wire::Code*>(header + wire::kCodesOffsetBytes)[number - 1];
  const void* lines = field<const void*>(code, layout.code_lines);
  return noted.first_line == field<uint32_t>(code, layout.code_first_line) &&
         noted.lines_bytes == field<uint64_t>(lines, kSizeOffset) &&
         memcmp(static_cast<const char*>(lines) + kBytesOffset, header + wire::kTextsOffsetBytes + noted.lines_at,
                noted.lines_bytes) == 0 &&
         is_text(field<const void*>(code, layout.code_name), noted.name_at, noted.name_bytes) &&
         is_text(field<const void*>(code, layout.code_file), noted.file_at, noted.file_bytes);
}

HS_SLOW_PATH uint32_t number_slowly(const void* code) {
  const os::KeepErrno keep;
  if (!codes_lock.lock(os::yield_processor)) return 0;
  uint32_t number = 0;
  if (seen_codes == nullptr) {
    seen_codes = static_cast<SeenCode*>(map_own(sizeof(SeenCode) << kSeenBits));
  }
  if (seen_codes != nullptr) {
    const auto address = reinterpret_cast<uint64_t>(code);
    SeenCode& seen = *find_seen(seen_codes, address);
    if (seen.address == address && (seen.identity == identity_of(code) || is_noted_as(seen.number, code))) {
      number = seen.number;
      store_relaxed(seen.identity, identity_of(code));
    } else if ((number = note_code(code)) != 0) {
      seen.number = number;
      seen.identity = identity_of(code);
      uint64_t bit;
      uint64_t& place = code_place_of(address, bit);
      store_relaxed(place, place | bit);
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

}  // namespace

const void* innermost_frame() {
  if (load_acquire(is_known) == 0) return nullptr;
  const void* state = own_state();
  if (state == nullptr) return nullptr;
  const void* frame = field<const void*>(state, layout.state_frame);
  return layout.is_indirect && frame != nullptr ? field<const void*>(frame, layout.indirect_frame) : frame;
}

namespace {

uint64_t instruction_of(const void* frame) { return field<uint64_t>(frame, layout.instruction); }
const void* previous_of(const void* frame) { return field<const void*>(frame, layout.previous); }
bool is_entry_of(const void* frame) { return layout.entry != 0 && field<uint8_t>(frame, layout.entry) != 0; }
bool is_between_of(const void* frame) {
  return layout.entry == 0 && field<uint8_t>(frame, layout.owner) >= kOwnedByInterpreter;
}

// Null where what lies there is no code.
const void* code_of(const void* frame) {
  const auto* code = reinterpret_cast<const void*>(field<uintptr_t>(frame, layout.code) & ~kReferenceKindBits);
  return code != nullptr && field<const void*>(code, kTypeOffset) == code_type ? code : nullptr;
}

// From 3.13 on the interpreter puts a frame of its own between a class and its `__init__`: its code has one text for file and
// name, and no line.
bool is_makeshift(const void* code) {
  return field<const void*>(code, layout.code_file) == field<const void*>(code, layout.code_name) &&
         field<uint32_t>(code, layout.code_first_line) == 0;
}

uint64_t key_of(const void* code, uint64_t instruction) {
  if (HS_UNLIKELY(is_makeshift(code))) return 0;
  const uint64_t start = reinterpret_cast<uint64_t>(code) + layout.code_start;
  const uint64_t offset = instruction >= start ? instruction - start : 0;
  return wire::kFramePythonBit | uint64_t{number_of(code)} << 32 | (offset & 0xffffffffu);
}

uint64_t mix(uint64_t before, uint64_t value) {
  uint64_t hash = (before ^ value) * 0x9E3779B97F4A7C15u;
  hash = (hash ^ hash >> 29) * 0xC2B2AE3D27D4EB4Fu;
  return hash ^ hash >> 32;
}

uint16_t& hint_of(Chain& chain, const void* frame) {
  return chain.hints[(reinterpret_cast<uintptr_t>(frame) >> 3) * 0x9E3779B97F4A7C15u >> (64 - Chain::kHintBits)];
}

// Where the frame is among those that were seen last; 0: it is not.
uint32_t find_frame(Chain& chain, const void* frame) {
  const uint32_t hint = hint_of(chain, frame);
  return hint <= chain.count && chain.frames[hint] == frame ? hint : 0;
}

// Compares everything from one frame outwards, and notes what has changed. Answers the outermost that has; 0 where the chain
// itself goes elsewhere.
template <bool kHasEntries>
uint32_t compare_outwards(Chain& chain, uint32_t from) {
  const uint32_t instruction = layout.instruction;
  const uint32_t previous = layout.previous;
  uint32_t changed = from + 1;
  const void* frame = chain.frames[from];
  for (uint32_t at = from; at > 0; --at) {
    const void* caller = chain.frames[at - 1];
    const uint64_t elsewhere = field<uint64_t>(frame, previous) ^ reinterpret_cast<uint64_t>(caller);
    uint64_t other = field<uint64_t>(frame, instruction) ^ chain.instructions[at];
    if (kHasEntries) other |= field<uint8_t>(frame, layout.entry) ^ chain.is_entry[at];
    if (HS_UNLIKELY((elsewhere | other) != 0)) {
      if (elsewhere != 0) return 0;
      changed = at;
    }
    frame = caller;
  }
  return changed;
}

// What follows from the frames from one on inwards.
bool work_out(Chain& chain, uint32_t from) {
  for (uint32_t at = from; at <= chain.count; ++at) {
    const void* frame = chain.frames[at];
    chain.instructions[at] = instruction_of(frame);
    chain.is_entry[at] = is_entry_of(frame) ? 1 : 0;
    chain.is_between[at] = is_between_of(frame);
    const void* code = chain.is_between[at] ? nullptr : code_of(frame);
    if (code == nullptr && !chain.is_between[at]) return false;
    chain.keys[at] = code == nullptr ? 0 : key_of(code, chain.instructions[at]);
    const uint64_t kind = uint64_t{chain.is_entry[at]} << 62 | uint64_t{chain.is_between[at]} << 61;
    chain.identities[at] = mix(chain.identities[at - 1], chain.keys[at] ^ kind);
  }
  return true;
}

}  // namespace

bool follow(Chain& chain, const void* innermost) {
  // Where births are not all seen, code may have been replaced by other code.
  const bool sees_births = recording.recorder->stack_mode == static_cast<uint32_t>(wire::StackMode::kAll) &&
                           recording.recorder->python_objects != 0;
  const uint32_t generation = load_relaxed(codes_gone);
  if (HS_UNLIKELY(!sees_births || chain.generation != generation)) chain.count = 0;
  chain.generation = generation;
  const void* frame = innermost;
  uint32_t known = 0;
  uint32_t fresh_count = 0;
  const auto collect = [&] {
    for (known = 0; frame != nullptr && (known = find_frame(chain, frame)) == 0; frame = previous_of(frame)) {
      if (fresh_count == Chain::kCapacity) return false;
      chain.fresh[fresh_count++] = frame;
    }
    return true;
  };
  bool is_whole = collect();
  uint32_t changed = known + 1;
  if (HS_LIKELY(is_whole && known != 0)) {
    changed = layout.entry != 0 ? compare_outwards<true>(chain, known) : compare_outwards<false>(chain, known);
    if (HS_UNLIKELY(changed == 0)) {
      chain.count = 0;
      is_whole = collect();
      changed = 1;
    }
  }
  chain.count = 0;  // in case it stays so
  if (!is_whole || known + fresh_count > Chain::kCapacity) return false;
  while (fresh_count > 0) {
    const void* next = chain.fresh[--fresh_count];
    hint_of(chain, next) = static_cast<uint16_t>(++known);
    chain.frames[known] = next;
  }
  chain.count = known;
  if (HS_LIKELY(work_out(chain, changed))) return true;
  chain.count = 0;
  return false;
}

uint64_t identity_of(const Chain& chain) { return chain.identities[chain.count]; }

uint32_t frames_of(const Chain& chain, PythonFrame* into) {
  uint32_t count = 0;
  for (uint32_t at = chain.count; at > 0; --at) {
    if (chain.keys[at] != 0) {
      into[count++] = {chain.keys[at], chain.is_entry[at]};
    } else if (chain.is_between[at] && count > 0 && into[count - 1].entry == 0) {
      into[count - 1].entry = reinterpret_cast<uintptr_t>(chain.frames[at]);
    }
  }
  return count;
}

uint32_t walk_python(const void* innermost, PythonFrame* into, uint32_t capacity) {
  uint32_t count = 0;
  for (const void* frame = innermost; frame != nullptr && count < capacity; frame = previous_of(frame)) {
    if (is_between_of(frame)) {
      if (count > 0 && into[count - 1].entry == 0) into[count - 1].entry = reinterpret_cast<uintptr_t>(frame);
      continue;
    }
    const void* code = code_of(frame);
    if (code == nullptr) break;
    const uint64_t key = key_of(code, instruction_of(frame));
    if (key != 0) into[count++] = {key, uintptr_t{is_entry_of(frame)}};
  }
  return count;
}

void forget_code_at(const void* block, size_t requested_bytes) {
  // Before its instructions a code object has more than that in any version.
  constexpr size_t kSmallestCodeBytes = 128;
  if (HS_LIKELY(requested_bytes < kSmallestCodeBytes)) return;
  SeenCode* table = load_acquire(seen_codes);
  if (table == nullptr) return;
  // Debug hooks put some bytes before what they give.
  for (uint64_t hooked_bytes = 0; hooked_bytes <= 16; hooked_bytes += 16) {
    const uint64_t address = reinterpret_cast<uint64_t>(block) + hooked_bytes;
    uint64_t bit;
    if (HS_LIKELY((load_relaxed(code_place_of(address, bit)) & bit) == 0)) continue;
    SeenCode* seen = find_seen(table, address);
    if (seen->address != address || load_relaxed(seen->identity) == 0) continue;
    store_relaxed(seen->identity, uint64_t{0});
    fetch_add_relaxed(codes_gone, 1u);
  }
}

const char* find_python_frames(void* library, uint32_t version) {
  const auto find = [&](const char* name) { return dlsym(library == nullptr ? RTLD_DEFAULT : library, name); };
  own_state = reinterpret_cast<void* (*)()>(find("PyGILState_GetThisThreadState"));
  code_type = find("PyCode_Type");
  const void* eval = find("_PyEval_EvalFrameDefault");
  const auto* table = static_cast<const uint64_t*>(find("_PyRuntime"));
  dlerror();
  const char* problem = lay_out(version, table, layout);
  if (problem == nullptr && (own_state == nullptr || code_type == nullptr)) {
    problem = "the interpreter hides where a thread is";
  }
  if (problem != nullptr) return problem;
  if (eval != nullptr) tell_eval(eval);
  store_release(is_known, 1u);
  return "";
}

void forget_codes() {
  codes_lock.reset();
  if (seen_codes != nullptr) unmap_own(seen_codes, sizeof(SeenCode) << kSeenBits);
  seen_codes = nullptr;
}

}  // namespace hs::record
