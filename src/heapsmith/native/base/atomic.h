// Atomic access with the memory order in the name, on plain fields (what lies in shared memory has no constructors).
#pragma once

namespace hs {

template <class T>
inline __attribute__((always_inline)) T load_relaxed(const T& from) {
  return __atomic_load_n(&from, __ATOMIC_RELAXED);
}

template <class T>
inline __attribute__((always_inline)) T load_acquire(const T& from) {
  return __atomic_load_n(&from, __ATOMIC_ACQUIRE);
}

template <class T, class U>
inline __attribute__((always_inline)) void store_relaxed(T& to, U value) {
  __atomic_store_n(&to, static_cast<T>(value), __ATOMIC_RELAXED);
}

template <class T, class U>
inline __attribute__((always_inline)) void store_release(T& to, U value) {
  __atomic_store_n(&to, static_cast<T>(value), __ATOMIC_RELEASE);
}

// For a field that only this thread writes: readers never see half a value, and no bus is locked.
template <class T, class U>
inline __attribute__((always_inline)) void add_single_writer(T& to, U value) {
  store_relaxed(to, static_cast<T>(load_relaxed(to) + static_cast<T>(value)));
}

template <class T, class U>
inline T fetch_add_relaxed(T& to, U value) {
  return __atomic_fetch_add(&to, static_cast<T>(value), __ATOMIC_RELAXED);
}

template <class T>
inline bool compare_exchange_acquire(T& at, T& expected, T desired) {
  return __atomic_compare_exchange_n(&at, &expected, desired, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

template <class T>
inline bool compare_exchange_relaxed(T& at, T& expected, T desired) {
  return __atomic_compare_exchange_n(&at, &expected, desired, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

inline void fence_sequential() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

}  // namespace hs
