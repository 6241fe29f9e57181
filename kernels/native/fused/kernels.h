// What the arithmetic of fused operations is given: plain pointers, so that it is compiled without libtorch, once for
// every instruction set.
//
// Layouts: tensors are [image, row, column, edge, channel], innermost last; a tensor that all edges share has no edge
// axis. Channels are a multiple of the number of lanes of a vector.

#pragma once

#include <cstdint>

namespace nasfw {

// A square depthwise convolution that keeps the size at stride 1, of `edges` edges of `c` channels.
struct Shape {
  int64_t c, edges, h, w, kernel, stride, dilation;

  int64_t pad() const { return dilation * (kernel - 1) / 2; }
  int64_t oh() const { return (h - 1) / stride + 1; }
  int64_t ow() const { return (w - 1) / stride + 1; }
  int64_t padded() const { return (h + 2 * pad()) * (w + 2 * pad()); }
  // Numbers of scratch that a task needs.
  int64_t scratch() const { return (2 * padded() + 3 * h * w + kernel * kernel) * c; }
};

// Mean and sum of squared deviations of every channel of every edge, or two sums of products: partial results of a task.
struct Sums {
  double* first;
  double* second;
};

// output = pointwise(depthwise(relu(scale · input + shift))), and its moments.
template <class T>
struct Stage {
  Shape shape;
  const T* input;      // [n, h, w, (edges,) c]
  const T* scale;      // [edges, c]; null: the input is shared by all edges and used as it is
  const T* shift;      // [edges, c]
  const T* depthwise;  // [edges, kernel², c]
  const T* pointwise;  // [edges, c in, c out]
};

// The gradient that arrives at a stage's output is upper · g + slope · y + constant, where g is the gradient of what
// the batch norm behind the stage gives, and y the stage's output.
template <class T>
struct Arriving {
  const T* const* g;     // one pointer an edge
  const int64_t* steps;  // from pixel to pixel in g, one an edge
  const T* y;         // [n, oh, ow, edges, c]
  const T* upper;     // [edges, c]
  const T* slope;
  const T* constant;
};

// Where a stage's gradients go. Null: not wanted.
template <class T>
struct Gradients {
  T* depthwise;         // [edges, kernel², c], added to
  T* pointwise;         // [edges, c out, c in], added to
  T* input;             // shared: [n, h, w, c]; else of the normalised input, [n, h, w, edges, c]
  const T* pointwise_t; // the stage's pointwise weights as [edges, c out, c in]
};

// node (+)= weight · relu?(scale · y + shift) for every edge.
template <class T>
struct Blend {
  int64_t c, edges, pixels;  // pixels of an image
  bool shared, relu;
  const T* y;      // [n, pixels, (edges,) c]
  const T* scale;  // [edges or 1, c]; null: one and zero
  const T* shift;
  const T* weight;   // [edges]
  T* const* nodes;   // [n, pixels, c] each
  const uint8_t* fresh; // per edge: write instead of add
};

// The gradients of a blend whose y was normalised as xhat = y · inv − mean · inv, scale = gain · inv.
template <class T>
struct BlendBack {
  Blend<T> forward;      // nodes unused
  const T* const* g;     // [n, pixels, c] each
  const int64_t* steps;  // from pixel to pixel in g, one an edge
  const T* inv;          // [edges or 1, c]: xhat = y · inv + offset; null: xhat = y
  const T* offset;
  T* dy;                 // first pass: gradient of scale · y + shift; second pass: of y
  double* weight;        // [edges, c]: Σ g · act, per channel
  Sums sums;             // [edges or 1, c]: Σ of the gradient of scale · y + shift, and the same times xhat
};

template <class T>
struct Table {
  // One image of a stage; moments are merged into those of `seen` numbers a channel before.
  void (*stage)(const Stage<T>&, int64_t n, T* output, Sums moments, int64_t seen, T* scratch);
  // One image of a stage's gradients. Where the input is not shared, the sums of its gradient and of that times the
  // normalised input.
  void (*stage_back)(const Stage<T>&, const Arriving<T>&, const Gradients<T>&, int64_t n, Sums sums, T* scratch);
  // Moments of one image of [n, pixels, channels].
  void (*moments)(const T* y, int64_t channels, int64_t pixels, int64_t n, Sums moments, int64_t seen);
  void (*blend)(const Blend<T>&, int64_t n);
  void (*blend_back)(const BlendBack<T>&, int64_t n);
  // dy = upper · dy + slope · y + constant in place, of one image of [n, pixels, channels].
  void (*affine)(T* dy, const T* y, const T* upper, const T* slope, const T* constant, int64_t channels,
                 int64_t pixels, int64_t n);
};

// The arithmetic for `c` channels of `T` on this machine; null where the channels fit no vector.
template <class T>
const Table<T>* table(int64_t c);

}  // namespace nasfw
