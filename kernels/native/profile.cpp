// Counts the operators of libtorch that one thread calls.

#include <ATen/record_function.h>

#include <atomic>
#include <memory>

namespace {

// Threads of a backward pass inherit the callback.
std::atomic<int64_t> all{0};
std::atomic<int64_t> leaves{0};
thread_local int64_t inner = 0;

// How many calls had begun on this thread when this one began: none began since in a leaf.
struct Begun : at::ObserverContext {
  int64_t count;
};

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction&) {
  auto context = std::make_unique<Begun>();
  context->count = ++inner;
  all.fetch_add(1, std::memory_order_relaxed);
  return context;
}

void leave(const at::RecordFunction&, at::ObserverContext* context) {
  if (static_cast<Begun*>(context)->count == inner) {
    leaves.fetch_add(1, std::memory_order_relaxed);
  }
}

at::CallbackHandle counting_calls = 0;

}  // namespace

extern "C" void nasfw_count_begin() {
  all = 0;
  leaves = 0;
  auto callback = at::RecordFunctionCallback(enter, leave).scopes({at::RecordScope::FUNCTION});
  counting_calls = at::addThreadLocalCallback(callback);
}

extern "C" void nasfw_count_end(int64_t* calls, int64_t* leaf_calls) {
  at::removeCallback(counting_calls);
  *calls = all;
  *leaf_calls = leaves;
}
