// Four threads in two pairs: one allocates blocks of 16 to 1024 bytes in batches, the other frees them.
#include <array>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

using Batch = std::array<char*, 128>;

class Pipe {
 public:
  void put(const Batch& batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return batches_.size() < 64; });
    batches_.push_back(batch);
    changed_.notify_all();
  }
  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  bool take(Batch& batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || !batches_.empty(); });
    if (batches_.empty()) return false;
    batch = batches_.front();
    batches_.pop_front();
    changed_.notify_all();
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> batches_;
  bool closed_ = false;
};

void produce(Pipe& pipe, long blocks, uint64_t state) {
  Batch batch;
  for (long made = 0; made < blocks; made += static_cast<long>(batch.size())) {
    for (char*& block : batch) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      block = static_cast<char*>(malloc(16 + (state >> 40) % 1009));
      block[0] = 1;
    }
    pipe.put(batch);
  }
  pipe.close();
}

void consume(Pipe& pipe) {
  for (Batch batch; pipe.take(batch);) {
    for (char* block : batch) free(block);
  }
}

int main(int argc, char** argv) {
  const long blocks = argc > 1 ? atol(argv[1]) : 5'000'000;
  Pipe pipes[2];
  std::vector<std::thread> threads;
  for (uint64_t number = 0; number < 2; ++number) {
    threads.emplace_back(produce, std::ref(pipes[number]), blocks / 2, 0x2545F4914F6CDD1D + number);
    threads.emplace_back(consume, std::ref(pipes[number]));
  }
  for (std::thread& thread : threads) thread.join();
}
