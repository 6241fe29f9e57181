// Names of the operators that one thread calls.

#include <ATen/record_function.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace {

// Threads of a backward pass inherit the callback, so several may count at once.
std::mutex counting;
std::map<std::string, uint64_t> calls;

std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& function) {
  std::lock_guard<std::mutex> guard(counting);
  ++calls[function.name()];
  return nullptr;
}

at::CallbackHandle naming = 0;

}  // namespace

extern "C" void nasfw_names_begin() {
  calls.clear();
  naming = at::addThreadLocalCallback(
      at::RecordFunctionCallback(note).scopes({at::RecordScope::FUNCTION}));
}

extern "C" void nasfw_names_end(void* context, void (*visit)(void*, const char*, uint64_t)) {
  at::removeCallback(naming);
  for (const auto& [name, count] : calls) {
    visit(context, name.c_str(), count);
  }
}
