// Errors of C++ as messages, for they must not cross into Rust.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>

namespace nasfw {

// Runs f; gives the message of what it threw, for the caller to free, or null.
template <class F>
char* guarded(F f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  }
}

}  // namespace nasfw
