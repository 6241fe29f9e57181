// What libtorch's header of its Gloo group names of Gloo, whose own headers are not shipped with it. No value of these types
// is held or copied here; the definitions are in libtorch.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
