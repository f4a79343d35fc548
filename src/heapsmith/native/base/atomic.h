// Atomic access with the memory order in the name, on plain fields (what lies in shared memory has no constructors).
#pragma once

#include "base/compiler.h"

namespace hs {

template <class T>
HS_FAST_PATH T load_relaxed(const T& from) {
  return __atomic_load_n(&from, __ATOMIC_RELAXED);
}

template <class T>
HS_FAST_PATH T load_acquire(const T& from) {
  return __atomic_load_n(&from, __ATOMIC_ACQUIRE);
}

template <class T>
HS_FAST_PATH T load_sequential(const T& from) {
  return __atomic_load_n(&from, __ATOMIC_SEQ_CST);
}

template <class T, class U>
HS_FAST_PATH void store_relaxed(T& to, U value) {
  __atomic_store_n(&to, static_cast<T>(value), __ATOMIC_RELAXED);
}

template <class T, class U>
HS_FAST_PATH void store_release(T& to, U value) {
  __atomic_store_n(&to, static_cast<T>(value), __ATOMIC_RELEASE);
}

template <class T, class U>
HS_FAST_PATH void store_sequential(T& to, U value) {
  __atomic_store_n(&to, static_cast<T>(value), __ATOMIC_SEQ_CST);
}

template <class T, class U>
HS_FAST_PATH T fetch_add_relaxed(T& to, U value) {
  return __atomic_fetch_add(&to, static_cast<T>(value), __ATOMIC_RELAXED);
}

template <class T, class U>
HS_FAST_PATH T fetch_add_sequential(T& to, U value) {
  return __atomic_fetch_add(&to, static_cast<T>(value), __ATOMIC_SEQ_CST);
}

template <class T, class U>
HS_FAST_PATH T exchange_relaxed(T& at, U value) {
  return __atomic_exchange_n(&at, static_cast<T>(value), __ATOMIC_RELAXED);
}

template <class T>
HS_FAST_PATH bool compare_exchange_acquire(T& at, T& expected, T desired) {
  return __atomic_compare_exchange_n(&at, &expected, desired, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

template <class T>
HS_FAST_PATH bool compare_exchange_relaxed(T& at, T& expected, T desired) {
  return __atomic_compare_exchange_n(&at, &expected, desired, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

template <class T>
inline void raise_to(T& at, T candidate) {
  T seen = load_relaxed(at);
  while (candidate > seen && !compare_exchange_relaxed(at, seen, candidate)) {
  }
}

}  // namespace hs
