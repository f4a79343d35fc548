// The recorder's half, as its library exports it.
#pragma once

#include <stdint.h>

#include "drain/process.h"

struct Recorder;
extern "C" {
Recorder* hs_recorder_open(const char*, uint64_t, uint32_t, uint64_t, uint32_t, uint32_t);
void hs_recorder_close(Recorder*);
void hs_recorder_run(Recorder*, hs::drain::Process**, uint32_t, uint64_t);
hs::drain::Process* hs_process_open(Recorder*, const char*);
void hs_process_close(hs::drain::Process*);
uint64_t hs_process_finish(hs::drain::Process*, Recorder*);
}
