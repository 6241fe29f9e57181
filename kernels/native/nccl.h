// Exchanges between GPUs.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

namespace nasfw {

// NCCL's version; throws where it can't be loaded.
int nccl_version();

// The GPUs of a group of processes, one each.
class Ring {
 public:
  Ring(c10d::Store& store, int rank, int world, int8_t device, std::chrono::milliseconds timeout);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // As nasfw_group_slices and nasfw_group_gather, on the GPU.
  at::Tensor slices(const at::Tensor& flat);
  at::Tensor gather(const at::Tensor& mine);

 private:
  void finish(const c10::Stream& stream, const char* what);

  void* communicator_ = nullptr;
  int world_;
  int8_t device_;
  std::chrono::milliseconds timeout_;
};

}  // namespace nasfw
