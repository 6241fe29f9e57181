// A group of processes that exchange tensors: libtorch's c10d over Gloo.

#include "guarded.h"
#include "nccl.h"

#define USE_C10D_GLOO 1
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <c10/util/Logging.h>

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

namespace {

// The address that this host has on the way to another one: what the others can reach it by. The name of a host, which
// libtorch would take, is often that of the loopback. Nothing is sent: to connect a datagram socket is to choose a route.
std::string address_towards(const std::string& host, int port) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &found);
  TORCH_CHECK(failed == 0, "the host `", host, "` is not known: ", gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  for (const addrinfo* to = addresses.get(); to != nullptr; to = to->ai_next) {
    const int s = socket(to->ai_family, SOCK_DGRAM, 0);
    if (s < 0) continue;
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    char text[NI_MAXHOST];
    auto* at = reinterpret_cast<sockaddr*>(&own);
    const bool known = connect(s, to->ai_addr, to->ai_addrlen) == 0 && getsockname(s, at, &length) == 0 &&
                       getnameinfo(at, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0;
    close(s);
    if (known) return text;
  }
  TORCH_CHECK(false, "there is no route to the host `", host, "`");
}

using Gloo = c10::intrusive_ptr<c10d::ProcessGroupGloo>;

struct Group {
  c10::intrusive_ptr<c10d::TCPStore> store;
  c10::intrusive_ptr<c10d::PrefixStore> named;
  Gloo gloo;
  std::chrono::milliseconds timeout;
  // Of the GPU that the first tensor is on.
  std::unique_ptr<nasfw::Ring> ring;

  nasfw::Ring& on_gpu(const at::Tensor& t) {
    if (!ring) {
      ring = std::make_unique<nasfw::Ring>(*named, gloo->getRank(), gloo->getSize(), t.get_device(), timeout);
    }
    return *ring;
  }
};

at::Tensor gather(const Gloo& gloo, at::Tensor mine) {
  auto all = at::empty({gloo->getSize() * mine.numel()}, mine.options());
  gloo->_allgather_base(all, mine)->wait();
  return all.view({gloo->getSize(), -1});
}

// The sum of every process's vector, in the order of the processes.
at::Tensor sum(const Gloo& gloo, const at::Tensor& mine) {
  const at::AutoDispatchBelowADInplaceOrView no_graph;
  const auto all = gather(gloo, mine.contiguous());
  auto sum = all[0].clone();
  for (int64_t rank = 1; rank < all.size(0); ++rank) sum.add_(all[rank]);
  return sum;
}

// Every process's result depends on this one's vector, so its gradient is the sum of all of theirs.
struct Sum : torch::autograd::Node {
  Gloo gloo;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a sum over processes can't be differentiated twice");
    try {
      return {sum(gloo, grads[0])};
    } catch (const c10::Error& e) {
      // The engine says nothing of whose error it is.
      TORCH_CHECK(false, "another process is lost: ", e.what_without_backtrace());
    } catch (const std::exception& e) {
      TORCH_CHECK(false, "another process is lost: ", e.what());
    }
  }

  std::string name() const override { return "nasfw::SumOverProcesses"; }
};

}  // namespace

// Joins `world` processes as number `rank`, which meet at a store at `host`:`port`; this process serves it if `serves`. Names
// in the store begin with `prefix`. `interface` names the network interface; "" means the one towards the store.
extern "C" char* nasfw_group_join(void** out, const char* host, uint16_t port, int rank, int world, bool serves,
                                  const char* prefix, const char* interface, int64_t timeout_ms) {
  return nasfw::guarded([&] {
    // What fails is thrown as well: libtorch would print it with its stack, once for every try to connect.
    setenv("TORCH_CPP_LOG_LEVEL", "FATAL", 0);
    c10::initLogging();
    const std::chrono::milliseconds timeout(timeout_ms);
    auto group = std::make_unique<Group>();
    c10d::TCPStoreOptions at;
    at.port = port;
    at.isServer = serves;
    at.numWorkers = world;
    at.waitWorkers = false;
    at.timeout = timeout;
    group->store = c10::make_intrusive<c10d::TCPStore>(std::string(host), at);
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    const std::string named(interface);
    options->devices.push_back(
        named.empty() ? c10d::ProcessGroupGloo::createDeviceForHostname(address_towards(host, port))
                      : c10d::ProcessGroupGloo::createDeviceForInterface(named));
    group->timeout = timeout;
    group->named = c10::make_intrusive<c10d::PrefixStore>(std::string(prefix), group->store);
    group->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(group->named, rank, world, options);
    *out = group.release();
  });
}

// Slice `rank` of every process's `flat` ([world × n], contiguous): [world, n].
extern "C" char* nasfw_group_slices(void* group, at::Tensor** out, const at::Tensor* flat) {
  return nasfw::guarded([&] {
    auto& g = *static_cast<Group*>(group);
    if (flat->is_cuda()) {
      *out = new at::Tensor(g.on_gpu(*flat).slices(*flat));
      return;
    }
    auto& gloo = *g.gloo;
    auto input = *flat;
    auto slices = at::empty_like(input);
    std::vector<int64_t> even;
    gloo.alltoall_base(slices, input, even, even)->wait();
    *out = new at::Tensor(slices.view({gloo.getSize(), -1}));
  });
}

// Every process's `mine` ([n], contiguous): [world, n].
extern "C" char* nasfw_group_gather(void* group, at::Tensor** out, const at::Tensor* mine) {
  return nasfw::guarded([&] {
    auto& g = *static_cast<Group*>(group);
    *out = new at::Tensor(mine->is_cuda() ? g.on_gpu(*mine).gather(*mine) : gather(g.gloo, *mine));
  });
}

// The sum of every process's `mine` ([n], on the CPU), in the order of the processes, with a graph: [n].
extern "C" char* nasfw_group_sum(void* group, at::Tensor** out, const at::Tensor* mine) {
  return nasfw::guarded([&] {
    const auto& gloo = static_cast<Group*>(group)->gloo;
    auto total = sum(gloo, *mine);
    if (at::GradMode::is_enabled() && mine->requires_grad()) {
      auto node = c10::make_intrusive<Sum>();
      node->gloo = gloo;
      node->set_next_edges(torch::autograd::collect_next_edges(*mine));
      torch::autograd::set_history(total, node);
    }
    *out = new at::Tensor(total);
  });
}

extern "C" void nasfw_group_leave(void* group) { delete static_cast<Group*>(group); }
