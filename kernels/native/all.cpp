// All of it as one unit: reading libtorch's headers takes longer than compiling what is here.

#include "handle.cpp"
#include "memory.cpp"
#include "names.cpp"
#include "precision.cpp"
#include "profile.cpp"
#include "surrogate.cpp"
#include "version.cpp"
#include "views.cpp"

#include "fused/fused.cpp"
