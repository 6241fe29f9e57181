// Precision: autocast, TF32, and results that repeat.

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>

namespace {

at::DeviceType device_type(bool cuda) { return cuda ? at::kCUDA : at::kCPU; }

}  // namespace

// Begins autocast to bfloat16 on this thread, and says what was before.
extern "C" void nasfw_autocast_begin(bool cuda, bool* was_enabled, int8_t* was_type) {
  auto device = device_type(cuda);
  *was_enabled = at::autocast::is_autocast_enabled(device);
  *was_type = static_cast<int8_t>(at::autocast::get_autocast_dtype(device));
  at::autocast::set_autocast_dtype(device, at::kBFloat16);
  at::autocast::set_autocast_enabled(device, true);
  at::autocast::increment_nesting();
}

extern "C" void nasfw_autocast_end(bool cuda, bool was_enabled, int8_t was_type) {
  auto device = device_type(cuda);
  if (at::autocast::decrement_nesting() == 0) {
    at::autocast::clear_cache();
  }
  at::autocast::set_autocast_enabled(device, was_enabled);
  at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(was_type));
}

extern "C" bool nasfw_autocast_enabled(bool cuda) {
  return at::autocast::is_autocast_enabled(device_type(cuda));
}

extern "C" void nasfw_set_tf32(bool allow) {
  at::globalContext().setAllowTF32CuBLAS(allow);
  at::globalContext().setAllowTF32CuDNN(allow);
}

extern "C" bool nasfw_tf32() {
  return at::globalContext().allowTF32CuBLAS() && at::globalContext().allowTF32CuDNN();
}

// Kernels of GPUs whose results repeat. Operations that have none are computed as ever, with a warning.
extern "C" void nasfw_set_deterministic(bool on) {
  at::globalContext().setDeterministicCuDNN(on);
  at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/true);
  // That is for programs that read what they never wrote; filling takes time.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

extern "C" bool nasfw_deterministic() {
  return at::globalContext().deterministicCuDNN() && at::globalContext().deterministicAlgorithms();
}

extern "C" bool nasfw_cudnn_benchmark() { return at::globalContext().benchmarkCuDNN(); }
