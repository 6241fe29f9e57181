// Exchanges between GPUs: NCCL by its C interface, looked up when it is asked for, so that neither its headers nor CUDA's are
// needed to build, and the library only where it is used. Streams and events are c10's.

#include "guarded.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <dlfcn.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "nccl.h"

namespace nasfw {
namespace {

// ncclUniqueId and ncclDataType_t are part of NCCL's ABI.
struct Id {
  char bytes[128];
};

constexpr int kFloat = 7;
constexpr int kDouble = 8;

struct Library {
  const char* (*error)(int);
  int (*version)(int*);
  int (*id)(Id*);
  int (*init)(void**, int, Id, int);
  int (*begin)();
  int (*end)();
  int (*send)(const void*, size_t, int, int, void*, void*);
  int (*receive)(void*, size_t, int, int, void*, void*);
  int (*gather)(const void*, void*, size_t, int, void*, void*);
  int (*fault)(void*, int*);
  int (*abort)(void*);
};

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  TORCH_CHECK(function != nullptr, "libnccl.so.2 has no ", name);
}

const Library& library() {
  static const Library loaded = [] {
    void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_GLOBAL);
    TORCH_CHECK(handle != nullptr, "NCCL can't be loaded: ", dlerror());
    Library l{};
    find(handle, "ncclGetErrorString", l.error);
    find(handle, "ncclGetVersion", l.version);
    find(handle, "ncclGetUniqueId", l.id);
    find(handle, "ncclCommInitRank", l.init);
    find(handle, "ncclGroupStart", l.begin);
    find(handle, "ncclGroupEnd", l.end);
    find(handle, "ncclSend", l.send);
    find(handle, "ncclRecv", l.receive);
    find(handle, "ncclAllGather", l.gather);
    find(handle, "ncclCommGetAsyncError", l.fault);
    find(handle, "ncclCommAbort", l.abort);
    return l;
  }();
  return loaded;
}

void check(int code, const char* what) {
  TORCH_CHECK(code == 0, what, ": ", library().error(code));
}

int kind(const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble, "NCCL is given floating-point numbers only");
  return t.scalar_type() == at::kFloat ? kFloat : kDouble;
}

}  // namespace

int nccl_version() {
  int version = 0;
  check(library().version(&version), "version of NCCL");
  return version;
}

Ring::Ring(c10d::Store& store, int rank, int world, int8_t device, std::chrono::milliseconds timeout)
    : world_(world), device_(device), timeout_(timeout) {
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  guard.setDevice(c10::Device(c10::DeviceType::CUDA, device));
  Id id{};
  if (rank == 0) {
    check(library().id(&id), "NCCL's address");
    store.set("nccl", std::vector<uint8_t>(id.bytes, id.bytes + sizeof id.bytes));
  } else {
    const auto bytes = store.get("nccl");
    TORCH_CHECK(bytes.size() == sizeof id.bytes, "NCCL's address has ", bytes.size(), " bytes");
    std::copy(bytes.begin(), bytes.end(), id.bytes);
  }
  check(library().init(&communicator_, world, id, rank), "joining by NCCL");
}

Ring::~Ring() {
  if (communicator_ != nullptr) library().abort(communicator_);
}

// Waits for what was begun on the stream. A process that is gone would let its kernels wait for ever.
void Ring::finish(const c10::Stream& stream, const char* what) {
  c10::Event done(c10::DeviceType::CUDA);
  done.record(stream);
  const auto until = std::chrono::steady_clock::now() + timeout_;
  while (!done.query()) {
    int fault = 0;
    library().fault(communicator_, &fault);
    if (fault != 0 || std::chrono::steady_clock::now() > until) {
      library().abort(communicator_);
      communicator_ = nullptr;
      TORCH_CHECK(false, what, ": ", fault != 0 ? library().error(fault) : "no answer in time");
    }
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

at::Tensor Ring::slices(const at::Tensor& flat) {
  TORCH_CHECK(communicator_ != nullptr, "the processes have parted");
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  const auto stream = guard.getStream(c10::Device(c10::DeviceType::CUDA, device_));
  auto rows = at::empty_like(flat).view({world_, -1});
  const auto own = flat.view({world_, -1});
  const size_t n = own.size(1);
  check(library().begin(), "exchange by NCCL");
  for (int rank = 0; rank < world_; ++rank) {
    check(library().send(own[rank].data_ptr(), n, kind(flat), rank, communicator_, stream.native_handle()), "sending by NCCL");
    check(library().receive(rows[rank].data_ptr(), n, kind(flat), rank, communicator_, stream.native_handle()), "receiving by NCCL");
  }
  check(library().end(), "exchange by NCCL");
  finish(stream, "exchange by NCCL");
  return rows;
}

at::Tensor Ring::gather(const at::Tensor& mine) {
  TORCH_CHECK(communicator_ != nullptr, "the processes have parted");
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  const auto stream = guard.getStream(c10::Device(c10::DeviceType::CUDA, device_));
  auto all = at::empty({world_, mine.numel()}, mine.options());
  check(library().gather(mine.data_ptr(), all.data_ptr(), mine.numel(), kind(mine), communicator_, stream.native_handle()),
        "gathering by NCCL");
  finish(stream, "gathering by NCCL");
  return all;
}

}  // namespace nasfw

// NCCL's version, such as 22304 for 2.23.4.
extern "C" char* nasfw_nccl_version(int* out) {
  return nasfw::guarded([&] { *out = nasfw::nccl_version(); });
}
