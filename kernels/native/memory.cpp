// Memory of accelerators, through the allocator that their library registers: nothing of CUDA is linked.

#include <c10/core/CachingDeviceAllocator.h>

// Bytes of a GPU that its allocator held at most since the last reset; negative where there is none.
extern "C" int64_t nasfw_cuda_peak(int8_t device) {
  try {
    auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(device);
    return stats.reserved_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  } catch (const std::exception&) {
    return -1;
  }
}

extern "C" bool nasfw_cuda_reset_peak(int8_t device) {
  try {
    auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    allocator->emptyCache();
    allocator->resetPeakStats(device);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}
