#include "record/unwind.h"

#include <string.h>

#include "base/atomic.h"
#include "os/shared_memory.h"
#include "record/modules.h"
#include "wire/recording.h"

extern "C" void* __libc_stack_end __attribute__((weak));

namespace hs::record {

uint32_t code_generation = 0;

namespace {

uintptr_t eval_begin = 0;

// How to leave the frame of a function at one address.
enum Kind : uint64_t {
  kEnd,          // the outermost frame, or nobody knows
  kFromStack,    // the frame begins at sp + offset
  kFromBase,     // at bp + offset
  kThroughBase,  // at what lies at bp + offset: a function that aligned its stack
  kChain,        // no table: bp may point at its predecessor
};

struct Rule {
  uint64_t bits;
  // kind 3 | frame offset 24 (signed) | where bp was saved 16 (signed, in words, 0: it was not) | module 14 | eval | own
  Kind kind() const { return static_cast<Kind>(bits & 7u); }
  int64_t frame_offset() const { return static_cast<int64_t>(bits << 37) >> 40; }
  int64_t base_words() const { return static_cast<int64_t>(bits << 21) >> 48; }
  uint64_t module() const { return bits >> 43 & 0x3fffu; }
  bool is_eval() const { return (bits >> 57 & 1u) != 0; }
  bool is_own() const { return (bits >> 58 & 1u) != 0; }
};

Rule make_rule(Kind kind, int64_t frame_offset, int64_t base_words, uint32_t module, bool is_eval, bool is_own) {
  return {static_cast<uint64_t>(kind) | (static_cast<uint64_t>(frame_offset) & 0xffffffu) << 3 |
          (static_cast<uint64_t>(base_words) & 0xffffu) << 27 | uint64_t{module & 0x3fffu} << 43 |
          uint64_t{is_eval} << 57 | uint64_t{is_own} << 58};
}

// An entry that was written by two threads at once does not fit itself, and is worked out again.
struct Cached {
  uint64_t key;
  uint64_t bits;
};
constexpr uint32_t kCachedBits = 13;
Cached cached[1u << kCachedBits];

HS_FAST_PATH uint64_t mixed(uint64_t bits) { return bits * 0x9E3779B97F4A7C15u; }
HS_FAST_PATH Cached& place_of(uintptr_t pc) { return cached[(pc * 0x9E3779B97F4A7C15u) >> (64 - kCachedBits)]; }

#if defined(__x86_64__)

constexpr uint64_t kBase = 6;
constexpr uint64_t kStack = 7;
constexpr uint64_t kReturn = 16;

struct Reader {
  const uint8_t* at;
  const uint8_t* end;

  template <class T>
  T fixed() {
    T value = 0;
    if (at + sizeof value <= end) memcpy(&value, at, sizeof value);
    at += sizeof value;
    return value;
  }
  uint64_t uleb() {
    uint64_t value = 0;
    for (uint32_t shift = 0; at < end; shift += 7) {
      const uint8_t byte = *at++;
      if (shift < 64) value |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) break;
    }
    return value;
  }
  int64_t sleb() {
    uint64_t value = 0;
    uint32_t shift = 0;
    while (at < end) {
      const uint8_t byte = *at++;
      if (shift < 64) value |= uint64_t{byte & 0x7fu} << shift;
      shift += 7;
      if ((byte & 0x80) == 0) {
        if ((byte & 0x40) != 0 && shift < 64) value |= ~uint64_t{0} << shift;
        break;
      }
    }
    return static_cast<int64_t>(value);
  }
  // A pointer as DW_EH_PE has it; false for an encoding that linkers do not write here.
  bool pointer(uint8_t encoding, uintptr_t data_base, uintptr_t& value) {
    const auto here = reinterpret_cast<uintptr_t>(at);
    switch (encoding & 0x0f) {
      case 0x00:
      case 0x04:
      case 0x0c:
        value = fixed<uint64_t>();
        break;
      case 0x02:
        value = fixed<uint16_t>();
        break;
      case 0x03:
        value = fixed<uint32_t>();
        break;
      case 0x0a:
        value = static_cast<uintptr_t>(int64_t{fixed<int16_t>()});
        break;
      case 0x0b:
        value = static_cast<uintptr_t>(int64_t{fixed<int32_t>()});
        break;
      default:
        return false;
    }
    switch (encoding & 0x70) {
      case 0x00:
        return true;
      case 0x10:
        value += here;
        return true;
      case 0x30:
        value += data_base;
        return true;
      default:
        return false;
    }
  }
};

struct State {
  uint64_t frame_register = kStack;
  int64_t frame_offset = 8;
  bool is_through = false;
  bool is_known = true;
  int64_t base_offset = 0;  // 0: bp is as the caller had it
  bool has_base = true;
  bool ends = false;
};

struct Entry {
  uintptr_t begin;
  uintptr_t end;
  int64_t code_factor;
  int64_t data_factor;
  Reader first;  // of the common part
  Reader rest;
  bool is_signal;
};

// Finds the entry of the function that holds the code, through the sorted table that linkers write beside the entries.
bool find_entry(const uint8_t* header, uintptr_t code, Entry& entry) {
  const auto data_base = reinterpret_cast<uintptr_t>(header);
  if (header[0] != 1 || header[3] != 0x3b) return false;
  Reader reader = {header + 4, header + 64};
  uintptr_t frames;
  uintptr_t count;
  if (!reader.pointer(header[1], data_base, frames) || !reader.pointer(header[2], data_base, count)) return false;
  struct Row {
    int32_t begin;
    int32_t entry;
  };
  const auto* rows = reinterpret_cast<const Row*>(reader.at);
  size_t low = 0;
  size_t high = count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (data_base + static_cast<uintptr_t>(int64_t{rows[middle].begin}) <= code) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return false;
  const auto* at = reinterpret_cast<const uint8_t*>(data_base + static_cast<uintptr_t>(int64_t{rows[low - 1].entry}));
  uint32_t length;
  memcpy(&length, at, sizeof length);
  if (length == 0 || length == 0xffffffff) return false;
  Reader fde = {at + 4, at + 4 + length};
  const uint8_t* back_from = fde.at;
  const uint8_t* common = back_from - fde.fixed<uint32_t>();
  memcpy(&length, common, sizeof length);
  if (length == 0 || length == 0xffffffff) return false;
  Reader cie = {common + 4, common + 4 + length};
  if (cie.fixed<uint32_t>() != 0) return false;
  const uint8_t version = cie.fixed<uint8_t>();
  const char* augmentation = reinterpret_cast<const char*>(cie.at);
  cie.at += strlen(augmentation) + 1;
  entry.code_factor = static_cast<int64_t>(cie.uleb());
  entry.data_factor = cie.sleb();
  if (version == 1) {
    cie.fixed<uint8_t>();
  } else {
    cie.uleb();
  }
  uint8_t encoding = 0;
  entry.is_signal = false;
  if (augmentation[0] == 'z') {
    const uint64_t bytes = cie.uleb();
    const uint8_t* behind = cie.at + bytes;
    for (const char* letter = augmentation + 1; *letter != '\0'; ++letter) {
      if (*letter == 'R') {
        encoding = cie.fixed<uint8_t>();
      } else if (*letter == 'L') {
        cie.fixed<uint8_t>();
      } else if (*letter == 'P') {
        uintptr_t personality;
        const uint8_t how = cie.fixed<uint8_t>();
        if (!cie.pointer(how & 0x7f, data_base, personality)) return false;
      } else if (*letter == 'S') {
        entry.is_signal = true;
      }
    }
    cie.at = behind;
  }
  uintptr_t bytes;
  if (!fde.pointer(encoding, data_base, entry.begin) || !fde.pointer(encoding & 0x0f, data_base, bytes)) return false;
  entry.end = entry.begin + bytes;
  if (augmentation[0] == 'z') {
    const uint64_t more = fde.uleb();
    fde.at += more;
  }
  entry.first = cie;
  entry.rest = fde;
  return code >= entry.begin && code < entry.end;
}

// What [bp + offset] says where a function aligned its stack; anything else is not followed.
bool read_expression(Reader reader, int64_t& offset) {
  if (reader.at >= reader.end || *reader.at != 0x70 + kBase) return false;
  ++reader.at;
  offset = reader.sleb();
  return reader.at + 1 == reader.end && *reader.at == 0x06;
}

void run(Reader reader, const Entry& entry, uintptr_t code, const State& initial, State& state) {
  uintptr_t location = entry.begin;
  State kept[8];
  uint32_t kept_count = 0;
  const auto save = [&](uint64_t name, int64_t offset) {
    if (name == kBase) state.base_offset = offset;
  };
  while (reader.at < reader.end) {
    const uint8_t byte = reader.fixed<uint8_t>();
    const uint8_t low = byte & 0x3f;
    uintptr_t advance = 0;
    switch (byte & 0xc0) {
      case 0x40:
        advance = low;
        break;
      case 0x80:
        save(low, static_cast<int64_t>(reader.uleb()) * entry.data_factor);
        break;
      case 0xc0:
        if (low == kBase) state.base_offset = initial.base_offset;
        break;
      default:
        switch (byte) {
          case 0x00:
            break;
          case 0x02:
            advance = reader.fixed<uint8_t>();
            break;
          case 0x03:
            advance = reader.fixed<uint16_t>();
            break;
          case 0x04:
            advance = reader.fixed<uint32_t>();
            break;
          case 0x05: {
            const uint64_t name = reader.uleb();
            save(name, static_cast<int64_t>(reader.uleb()) * entry.data_factor);
            break;
          }
          case 0x06:
            if (reader.uleb() == kBase) state.base_offset = initial.base_offset;
            break;
          case 0x07: {
            const uint64_t name = reader.uleb();
            if (name == kReturn) state.ends = true;
            if (name == kBase) state.has_base = false;
            break;
          }
          case 0x08:
            if (reader.uleb() == kBase) state.base_offset = 0;
            break;
          case 0x09:
            if (reader.uleb() == kBase) state.has_base = false;
            reader.uleb();
            break;
          case 0x0a:
            if (kept_count < 8) kept[kept_count] = state;
            ++kept_count;
            break;
          case 0x0b:
            if (kept_count == 0 || --kept_count >= 8) {
              state.is_known = false;
              return;
            }
            state = kept[kept_count];
            break;
          case 0x0c:
            state.frame_register = reader.uleb();
            state.frame_offset = static_cast<int64_t>(reader.uleb());
            state.is_through = false;
            state.is_known = true;
            break;
          case 0x0d:
            state.frame_register = reader.uleb();
            break;
          case 0x0e:
            state.frame_offset = static_cast<int64_t>(reader.uleb());
            break;
          case 0x0f: {
            const uint64_t bytes = reader.uleb();
            state.is_through = state.is_known = read_expression({reader.at, reader.at + bytes}, state.frame_offset);
            reader.at += bytes;
            break;
          }
          case 0x10: {
            // Of bp in a function that aligned its stack: saved at bp itself.
            const uint64_t name = reader.uleb();
            const uint64_t bytes = reader.uleb();
            if (name == kBase) state.base_offset = INT64_MIN;
            reader.at += bytes;
            break;
          }
          case 0x11: {
            const uint64_t name = reader.uleb();
            save(name, reader.sleb() * entry.data_factor);
            break;
          }
          case 0x12:
            state.frame_register = reader.uleb();
            state.frame_offset = reader.sleb() * entry.data_factor;
            break;
          case 0x13:
            state.frame_offset = reader.sleb() * entry.data_factor;
            break;
          case 0x14:
          case 0x15:
            reader.uleb();
            reader.uleb();
            break;
          case 0x16: {
            reader.uleb();
            const uint64_t bytes = reader.uleb();
            reader.at += bytes;
            break;
          }
          case 0x2e:
            reader.uleb();
            break;
          default:
            state.is_known = false;
            return;
        }
    }
    location += advance * static_cast<uintptr_t>(entry.code_factor);
    if (location > code) return;
  }
}

Rule work_out(uintptr_t code, const FoundModule& module, bool is_own) {
  Entry entry;
  if (module.unwind_header == nullptr || !find_entry(module.unwind_header, code, entry)) {
    return make_rule(module.number != 0 ? kEnd : kChain, 16, -2, module.number, false, is_own);
  }
  const bool is_eval = entry.begin == load_relaxed(eval_begin);
  const Rule end = make_rule(kEnd, 0, 0, module.number, is_eval, is_own);
  if (entry.is_signal) return end;
  State initial;
  run(entry.first, entry, UINTPTR_MAX, initial, initial);
  State state = initial;
  run(entry.rest, entry, code, initial, state);
  if (!state.is_known || state.ends || !state.has_base) return end;
  Kind kind = kEnd;
  if (state.is_through) {
    kind = kThroughBase;
  } else if (state.frame_register == kStack) {
    kind = kFromStack;
  } else if (state.frame_register == kBase) {
    kind = kFromBase;
  }
  // Through itself: the words -32768 say so.
  const int64_t base_words = state.base_offset == INT64_MIN ? -32768 : state.base_offset / 8;
  if (state.frame_offset > 0x7fffff || state.frame_offset < -0x7fffff || base_words > 32767 || base_words < -32768) {
    return end;
  }
  return make_rule(kind, state.frame_offset, base_words, module.number, is_eval, is_own);
}

#else

// Here every function keeps the chain of frames.
Rule work_out(uintptr_t, const FoundModule& module, bool is_own) {
  return make_rule(kChain, 16, -2, module.number, false, is_own);
}

#endif

HS_SLOW_PATH Rule find_rule_slowly(uintptr_t pc) {
  static uintptr_t own_begin = 0;
  static uintptr_t own_end = 0;
  if (load_relaxed(own_end) == 0) {
    const FoundModule own = find_module(reinterpret_cast<uintptr_t>(&find_rule_slowly));
    store_relaxed(own_begin, own.begin);
    store_relaxed(own_end, own.end);
  }
  const bool is_own = pc >= load_relaxed(own_begin) && pc < load_relaxed(own_end);
  // A call may be the last instruction of its function: its own address is before.
  const Rule rule = work_out(pc - 1, find_module(pc - 1), is_own);
  Cached& entry = place_of(pc);
  store_relaxed(entry.bits, rule.bits);
  store_relaxed(entry.key, pc ^ mixed(rule.bits));
  return rule;
}

HS_FAST_PATH Rule find_rule(uintptr_t pc) {
  const Cached& entry = place_of(pc);
  const uint64_t bits = load_relaxed(entry.bits);
  if (HS_LIKELY((load_relaxed(entry.key) ^ mixed(bits)) == pc)) return {bits};
  return find_rule_slowly(pc);
}

// How far up this thread's stack goes; on a stack of the program's own making nobody knows, and frames have to be small.
uintptr_t stack_end(uintptr_t sp) {
  constexpr uintptr_t kLargestStack = 1u << 30;
  constexpr uintptr_t kUnknownStack = 1u << 20;
  const auto thread = reinterpret_cast<uintptr_t>(__builtin_thread_pointer());
  if (thread > sp && thread - sp < kLargestStack) return thread;
  const auto first = &__libc_stack_end == nullptr ? 0 : reinterpret_cast<uintptr_t>(__libc_stack_end);
  return first > sp && first - sp < kLargestStack ? first : sp + kUnknownStack;
}

}  // namespace

uint32_t walk_native(Registers at, NativeFrame* into, uint32_t capacity, Trail& trail) {
  const uintptr_t from = at.sp;
  const uintptr_t end = stack_end(at.sp);
  uint32_t count = 0;
  // Where bp was read from, until somebody relies on it; 0: nowhere yet, or told already.
  uintptr_t bp_place = 0;
  bool is_bp_first = true;
  trail.begin();
  const auto rely_on_bp = [&] {
    if (is_bp_first) trail.uses_bp = true;
    if (bp_place != 0) trail.add(from, bp_place, at.bp);
    bp_place = 0;
  };
  while (at.pc > 4096) {
    if (count == capacity) {
      trail.is_whole = false;
      return count;
    }
    const Rule rule = find_rule(at.pc);
    if (!rule.is_own()) {
      into[count++] = {rule.module() << wire::kFrameModuleShift | at.pc, 0, rule.is_eval()};
    }
    uintptr_t frame;
    switch (rule.kind()) {
      case kFromStack:
        frame = at.sp + static_cast<uintptr_t>(rule.frame_offset());
        break;
      case kFromBase:
        rely_on_bp();
        frame = at.bp + static_cast<uintptr_t>(rule.frame_offset());
        break;
      case kThroughBase: {
        rely_on_bp();
        const uintptr_t through = at.bp + static_cast<uintptr_t>(rule.frame_offset());
        if (through < at.sp || through >= end) return count;
        frame = *reinterpret_cast<const uintptr_t*>(through);
        trail.add(from, through, frame);
        break;
      }
      case kChain:
        rely_on_bp();
        frame = at.bp + 16;
        if (at.bp < at.sp) return count;
        break;
      default:
        return count;
    }
    if (frame <= at.sp || frame > end || frame % 8 != 0) return count;
    if (!rule.is_own()) into[count - 1].end = frame;
    const int64_t base_words = rule.base_words();
    if (base_words != 0) {
      if (base_words == -32768) rely_on_bp();
      bp_place = base_words == -32768 ? at.bp : frame + static_cast<uintptr_t>(base_words * 8);
      if (bp_place < from || bp_place >= end) return count;
      at.bp = *reinterpret_cast<const uintptr_t*>(bp_place);
      is_bp_first = false;
    }
    at.pc = reinterpret_cast<const uintptr_t*>(frame)[-1];
    trail.add(from, frame - 8, at.pc);
    at.sp = frame;
  }
  return count;
}

void tell_eval(const void* function) {
  store_relaxed(eval_begin, reinterpret_cast<uintptr_t>(function));
  forget_rules();
}

void forget_rules() {
  for (Cached& entry : cached) store_relaxed(entry.key, uint64_t{0});
  forget_module_places();
  fetch_add_relaxed(code_generation, 1u);
}

}  // namespace hs::record
