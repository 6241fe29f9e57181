// Which libtorch this is compiled for.

#include <torch/headeronly/version.h>

extern "C" const char* nasfw_libtorch_version() { return TORCH_VERSION; }
