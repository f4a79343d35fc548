// The file of this process image that the recorder reads, and the recorder's page.
//
// Invariant: `recording.header` and `recording.recorder` are both mapped, or nothing is recorded.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "wire/recording.h"

namespace hs::record {

struct Recording {
  wire::RecordingHeader* header;
  wire::Ring* rings;
  wire::RecorderPage* recorder;
  uint32_t ring_capacity;
};

extern Recording recording;

// Where the recorder is, for a process that was not started by it; before the first record.
void set_directory(const char* directory);

// Makes the file of this image; answers false where there is no recorder, or no room. `forked`: this is a child that has
// not executed anything.
bool open_recording(bool forked);

// A file in another directory takes the place of the one before, at its addresses and with its tables and rings: what other
// threads know of those stays true. Nobody may be writing.
bool reopen_recording();

// In a forked child: the parent's file is not ours to write.
void forget_recording();

// The words of a ring, made accessible; null where they cannot be backed.
uint64_t* reveal_ring(uint32_t index);
// Backs the bytes of a ring from one offset to another.
bool back_ring(uint64_t* words, size_t from_bytes, size_t to_bytes);

// Private memory for the recording alone, which the recorder leaves out of what it tells of the program's.
void* map_own(size_t bytes);
void unmap_own(void* address, size_t bytes);
// Gives its pages back, for good: whoever still reads it reads zeros.
void empty_own(void* address, size_t bytes);

bool is_recorder_alive();
void wake_recorder();

}  // namespace hs::record
