// Two autograd functions that do the work of a supernet's edges in a few passes over memory: `separable` and `blend`.
// Both add what they compute, weighted by the architecture, to the nodes where the edges end, in place.
//
// Images are dealt out in a number of chunks that does not depend on the number of threads, and partial sums are added
// in the order of the chunks: results are the same on any number of threads.

#include "../guarded.h"
#include "kernels.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace nasfw {

// Tables of one instruction set; null where the channels fill no whole vectors.
const Table<float>* float_base(int64_t c);
const Table<float>* float_avx2(int64_t c);
const Table<float>* float_avx512(int64_t c);
const Table<double>* double_base(int64_t c);

template <>
const Table<double>* table<double>(int64_t c) {
  return double_base(c);
}

template <>
const Table<float>* table<float>(int64_t c) {
#ifdef NASFW_X86
  static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
  const Table<float>* found = avx512 ? float_avx512(c) : nullptr;
  if (found == nullptr && avx2) found = float_avx2(c);
  if (found != nullptr) return found;
#endif
  return float_base(c);
}

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr double kEps = 1e-5;
constexpr int64_t kChunks = 32;

int64_t chunks(int64_t n) { return std::min(n, kChunks); }

// f(chunk, image) for all images, those of a chunk in order.
template <class F>
void each_image(int64_t n, F f) {
  const int64_t count = chunks(n);
  at::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      for (int64_t i = k * n / count; i < (k + 1) * n / count; ++i) f(k, i);
    }
  });
}

int64_t first_image(int64_t n, int64_t chunk) { return chunk * n / chunks(n); }

// Memory of the calling thread, aligned to a cache line, until the next call.
template <class T>
T* scratch(int64_t numbers) {
  static thread_local std::vector<T> memory;
  const size_t wanted = numbers + 64 / sizeof(T);
  if (memory.size() < wanted) memory.resize(wanted);
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  return memory.data() + (64 - address % 64) % 64 / sizeof(T);
}

Tensor dense(const Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

// A new tensor, without a call of an operator.
Tensor blank(at::IntArrayRef size, at::ScalarType type) { return Tensor(at::detail::empty_cpu(size, type)); }

Tensor blank_images(int64_t n, int64_t c, int64_t h, int64_t w, at::ScalarType type) {
  return Tensor(at::detail::empty_cpu({n, c, h, w}, type, false, at::MemoryFormat::ChannelsLast));
}

// Two numbers a channel for every chunk.
struct Partial {
  int64_t n, channels;
  std::vector<double> first, second;

  Partial(int64_t n, int64_t channels)
      : n(n), channels(channels), first(chunks(n) * channels), second(chunks(n) * channels) {}

  Sums of(int64_t chunk) { return {first.data() + chunk * channels, second.data() + chunk * channels}; }

  // Their sums over all chunks, in the first one's place.
  void add_up() {
    for (int64_t k = 1; k < chunks(n); ++k) {
      for (int64_t c = 0; c < channels; ++c) {
        first[c] += first[k * channels + c];
        second[c] += second[k * channels + c];
      }
    }
  }
};

// Mean and 1/√(variance + ε) of every channel, [2, channels] in double precision.
struct Statistics {
  Tensor data;

  explicit Statistics(Tensor data) : data(std::move(data)) {}

  // From the chunks' moments, `pixels` numbers a channel and image (Chan, Golub & LeVeque 1983).
  Statistics(const Partial& p, int64_t pixels) : data(blank({2, p.channels}, at::kDouble)) {
    double* to = data.mutable_data_ptr<double>();
    for (int64_t c = 0; c < p.channels; ++c) {
      double mean = 0, squares = 0, seen = 0;
      for (int64_t k = 0; k < chunks(p.n); ++k) {
        const double count = double((first_image(p.n, k + 1) - first_image(p.n, k)) * pixels);
        const double delta = p.first[k * p.channels + c] - mean;
        mean += delta * count / (seen + count);
        squares += p.second[k * p.channels + c] + delta * delta * seen * count / (seen + count);
        seen += count;
      }
      to[c] = mean;
      to[p.channels + c] = 1 / std::sqrt(squares / seen + kEps);
    }
  }

  int64_t channels() const { return data.size(1); }
  double m(int64_t c) const { return data.const_data_ptr<double>()[c]; }
  double i(int64_t c) const { return data.const_data_ptr<double>()[channels() + c]; }
};

// Normalised = y · scale + shift.
template <class T>
struct Normalising {
  std::vector<T> scale, shift;

  Normalising() = default;

  explicit Normalising(const Statistics& s) : scale(s.channels()), shift(s.channels()) {
    for (size_t c = 0; c < scale.size(); ++c) {
      scale[c] = T(s.i(c));
      shift[c] = T(-s.m(c) * s.i(c));
    }
  }
};

// The gradient of batch norm's input is upper · g + slope · y + constant, where g · gain is the gradient of the
// normalised y, and `g_sum` and `gx_sum` are the sums over `count` numbers of g and of g times the normalised y.
template <class T>
struct Denormalising {
  std::vector<T> upper, slope, constant;

  explicit Denormalising(int64_t channels) : upper(channels), slope(channels), constant(channels) {}

  void set(int64_t c, const Statistics& s, double gain, double of_g, double g_sum, double gx_sum, double count) {
    const double inv = s.i(c), scaled = gain * inv, mean_gx = gx_sum / count;
    upper[c] = T(scaled * of_g);
    slope[c] = T(-scaled * inv * mean_gx);
    constant[c] = T(scaled * (s.m(c) * inv * mean_gx - g_sum / count));
  }
};

// `edges` matrices of rows × columns, each transposed.
template <class T>
std::vector<T> transposed(const T* data, int64_t edges, int64_t rows, int64_t columns) {
  std::vector<T> out(edges * rows * columns);
  for (int64_t e = 0; e < edges; ++e) {
    const T* in = data + e * rows * columns;
    T* to = out.data() + e * rows * columns;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) to[c * rows + r] = in[r * columns + c];
    }
  }
  return out;
}

// Nodes that edges end in: those that hold sums already are inputs, from position `from`, the others are new.
struct Nodes {
  std::vector<Tensor> tensors;
  std::vector<uint8_t> fresh;

  Nodes(at::TensorList inputs, size_t from, const std::vector<int64_t>& is_fresh, at::IntArrayRef size,
        AutogradContext* ctx) {
    variable_list dirty;
    for (int64_t f : is_fresh) {
      fresh.push_back(f != 0);
      if (f) {
        tensors.push_back(blank_images(size[0], size[1], size[2], size[3], inputs[0].scalar_type()));
      } else {
        const Tensor& node = inputs[from++];
        TORCH_CHECK(node.sizes() == size && node.is_contiguous(at::MemoryFormat::ChannelsLast) &&
                        node.scalar_type() == inputs[0].scalar_type(),
                    "a node's sum must be ", size, " with channels innermost, but is ", node.sizes());
        tensors.push_back(node);
        dirty.push_back(node);
      }
    }
    ctx->mark_dirty(dirty);
  }

  template <class T>
  std::vector<T*> pointers() const {
    std::vector<T*> p;
    for (const Tensor& t : tensors) p.push_back(t.mutable_data_ptr<T>());
    return p;
  }
};

// The gradients that arrive at nodes. Those of nodes that were joined are slices of one tensor, whose pixels lie further
// apart.
template <class T>
struct NodeGradients {
  std::vector<Tensor> tensors;
  std::vector<const T*> pointers;
  std::vector<int64_t> steps;

  explicit NodeGradients(const variable_list& grads) {
    for (const Tensor& g : grads) {
      const int64_t step = g.stride(3);
      const bool regular = g.stride(1) == 1 && g.stride(2) == step * g.size(3) && g.stride(0) == g.stride(2) * g.size(2);
      tensors.push_back(regular ? g : dense(g));
      pointers.push_back(tensors.back().template const_data_ptr<T>());
      steps.push_back(regular ? step : g.size(1));
    }
  }
};

// Gradients of the nodes that were inputs: what arrived.
void pass_on(const variable_list& grads, const std::vector<int64_t>& fresh, variable_list& out) {
  for (size_t e = 0; e < fresh.size(); ++e) {
    if (!fresh[e]) out.push_back(grads[e]);
  }
}

void refuse_double_backward() {
  TORCH_CHECK(!at::GradMode::is_enabled(),
              "fused kernels have first derivatives only; set trainer.fused = false for second derivatives");
}

// What the kernels take for granted of memory that they are given: they read and write without looking.
struct Checked {
  const char* of;
  const Tensor& x;

  Checked(const char* of, const Tensor& x) : of(of), x(x) {
    TORCH_CHECK(x.defined() && x.dim() == 4, of, ": images must be [n, c, h, w]");
    TORCH_CHECK(x.device().is_cpu(), of, ": images must be on the CPU, but are on ", x.device());
    TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, of,
                ": images must be of float or double, but are of ", x.scalar_type());
    TORCH_CHECK(x.numel() > 0, of, ": images of shape ", x.sizes(), " are none");
  }

  // A tensor of so many numbers, of the images' kind.
  void holds(const char* what, const Tensor& t, int64_t numbers) const {
    TORCH_CHECK(t.defined() && t.numel() == numbers, of, ": ", what, " must have ", numbers, " numbers, but has ",
                t.defined() ? t.numel() : 0);
    alike(what, t);
  }

  void alike(const char* what, const Tensor& t) const {
    TORCH_CHECK(t.device().is_cpu() && t.scalar_type() == x.scalar_type(), of, ": ", what, " must be of ",
                x.scalar_type(), " on the CPU like the images, but is of ", t.scalar_type(), " on ", t.device());
  }

  // Batch norm over `numbers` numbers a channel.
  void has_variance(int64_t numbers) const {
    TORCH_CHECK(numbers > 1, of, ": a batch norm sees a single number a channel, which has no variance");
  }

  // The mix, and the edges' ends that hold sums: the rest of the inputs from `from`.
  void ends(at::TensorList in, size_t from, const std::vector<int64_t>& fresh) const {
    TORCH_CHECK(!fresh.empty(), of, ": there are no edges");
    holds("the mix", in[from], fresh.size());
    for (size_t i = from + 1; i < in.size(); ++i) {
      alike("a node's sum", in[i]);
      TORCH_CHECK(in[i].numel() == 0 || in[i].data_ptr() != x.data_ptr(), of, ": a node's sum shares the images' memory");
      for (size_t j = from + 1; j < i; ++j) {
        TORCH_CHECK(in[i].data_ptr() != in[j].data_ptr(), of, ": two nodes' sums share memory");
      }
    }
  }
};

template <class T>
const Table<T>& checked_table(int64_t c) {
  const Table<T>* t = table<T>(c);
  TORCH_CHECK(t != nullptr, "fused kernels don't work on ", c, " channels");
  return *t;
}

template <class T>
void run_blend(const Table<T>& k, const Blend<T>& b, int64_t n) {
  each_image(n, [&](int64_t, int64_t i) { k.blend(b, i); });
}

// Carries out `back`, whose sums go to `sums`; gives the gradient of the mix.
template <class T>
Tensor run_blend_back(const Table<T>& k, const BlendBack<T>& back, int64_t n, const Tensor& mix, Partial& sums) {
  const int64_t c = back.forward.c, edges = back.forward.edges;
  Partial of_mix(n, edges * c);
  each_image(n, [&](int64_t chunk, int64_t i) {
    BlendBack<T> b = back;
    b.weight = of_mix.of(chunk).first;
    b.sums = sums.of(chunk);
    k.blend_back(b, i);
  });
  sums.add_up();
  of_mix.add_up();
  Tensor gradient = blank(mix.sizes(), mix.scalar_type());
  for (int64_t e = 0; e < edges; ++e) {
    double sum = 0;
    for (int64_t i = 0; i < c; ++i) sum += of_mix.first[e * c + i];
    gradient.mutable_data_ptr<T>()[e] = T(sum);
  }
  return gradient;
}

// ---- separable -------------------------------------------------------------------------------------------------

struct SeparablePlan {
  std::vector<int64_t> strides, dilations, fresh;
};

// Inputs: x [n, c, h, w]; per stage depthwise [edges · c, 1, k, k] and pointwise [edges · c, c, 1, 1]; mix [edges];
// nodes that hold sums. Per stage: ReLU, depthwise and pointwise convolution, batch norm with the batch's statistics.
struct Separable : Function<Separable> {
  static Shape shape(const Tensor& x, const Tensor& depthwise, int64_t edges, int64_t stride, int64_t dilation) {
    const int64_t c = depthwise.size(0) / edges;
    return {c, edges, x.size(2), x.size(3), depthwise.size(2), stride, dilation};
  }

  static void check(at::TensorList in, const SeparablePlan& plan) {
    const Checked checked("nasfw::separable", in[0]);
    const size_t stages = plan.strides.size();
    const int64_t c = in[0].size(1), edges = plan.fresh.size();
    TORCH_CHECK(stages > 0, checked.of, ": there are no stages");
    int64_t h = in[0].size(2), w = in[0].size(3);
    for (size_t s = 0; s < stages; ++s) {
      const Tensor &dw = in[1 + 2 * s], &pw = in[2 + 2 * s];
      const int64_t k = dw.defined() && dw.dim() == 4 ? dw.size(2) : 0;
      TORCH_CHECK(k == 3 || k == 5 || k == 7, checked.of, ": depthwise kernels must be [edges · c, 1, k, k], k 3, 5 or 7");
      TORCH_CHECK(dw.size(0) == edges * c && dw.numel() == edges * c * k * k && dw.size(3) == k && pw.defined() &&
                      pw.numel() == edges * c * c,
                  checked.of, ": weights of a separable convolution don't fit ", edges, " edges of ", c, " channels");
      checked.alike("a depthwise kernel", dw);
      checked.alike("a pointwise kernel", pw);
      for (const int64_t of : {plan.strides[s], plan.dilations[s]}) {
        TORCH_CHECK(of == 1 || of == 2, checked.of, ": strides and dilations must be 1 or 2, but one is ", of);
      }
      h = (h - 1) / plan.strides[s] + 1;
      w = (w - 1) / plan.strides[s] + 1;
    }
    checked.ends(in, 1 + 2 * stages, plan.fresh);
    checked.has_variance(in[0].size(0) * h * w);
  }

  template <class T>
  static variable_list run(AutogradContext* ctx, at::TensorList in, const SeparablePlan& plan) {
    const size_t stages = plan.strides.size();
    const Tensor x = dense(in[0]), mix = in[1 + 2 * stages].contiguous();
    const int64_t n = x.size(0), c = x.size(1), edges = plan.fresh.size();
    const Table<T>& k = checked_table<T>(c);
    variable_list saved{x};
    Tensor y = x;
    std::vector<Normalising<T>> norms;
    for (size_t s = 0; s < stages; ++s) {
      const Tensor dw = in[1 + 2 * s].contiguous(), pw = in[2 + 2 * s].contiguous();
      const Shape sh = shape(y, dw, edges, plan.strides[s], plan.dilations[s]);
      const auto taps = transposed(dw.const_data_ptr<T>(), edges, c, sh.kernel * sh.kernel);
      const auto matrix = transposed(pw.const_data_ptr<T>(), edges, c, c);
      const Stage<T> stage{sh, y.const_data_ptr<T>(), s ? norms.back().scale.data() : nullptr,
                           s ? norms.back().shift.data() : nullptr, taps.data(), matrix.data()};
      Tensor out = blank_images(n, edges * c, sh.oh(), sh.ow(), x.scalar_type());
      T* to = out.mutable_data_ptr<T>();
      const int64_t pixels = sh.oh() * sh.ow();
      Partial moments(n, edges * c);
      each_image(n, [&](int64_t chunk, int64_t i) {
        k.stage(stage, i, to, moments.of(chunk), (i - first_image(n, chunk)) * pixels, scratch<T>(sh.scratch()));
      });
      const Statistics stats(moments, pixels);
      norms.emplace_back(stats);
      for (const Tensor& t : {dw, pw, out, stats.data}) saved.push_back(t);
      y = out;
    }
    saved.push_back(mix);
    Nodes nodes(in, 2 + 2 * stages, plan.fresh, {n, c, y.size(2), y.size(3)}, ctx);
    const auto pointers = nodes.pointers<T>();
    const Blend<T> blend{c, edges, y.size(2) * y.size(3), false, false, y.const_data_ptr<T>(),
                         norms.back().scale.data(), norms.back().shift.data(), mix.const_data_ptr<T>(),
                         pointers.data(), nodes.fresh.data()};
    run_blend(k, blend, n);
    ctx->save_for_backward(saved);
    return nodes.tensors;
  }

  template <class T>
  static variable_list run_back(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<int64_t> strides = ctx->saved_data["strides"].toIntVector();
    const std::vector<int64_t> dilations = ctx->saved_data["dilations"].toIntVector();
    const std::vector<int64_t> fresh = ctx->saved_data["fresh"].toIntVector();
    const int64_t stages = strides.size(), edges = fresh.size();
    const Tensor &x = saved[0], &mix = saved.back();
    const int64_t n = x.size(0), c = x.size(1);
    const Table<T>& k = checked_table<T>(c);
    const auto of = [&](int64_t s, int64_t i) -> const Tensor& { return saved[1 + 4 * s + i]; };
    variable_list out(2 + 2 * stages);

    // Gradients of the mix, and the sums that the last batch norm's backward pass needs.
    const NodeGradients<T> g(grads);
    const Tensor& last = of(stages - 1, 2);
    Statistics stats(of(stages - 1, 3));
    Normalising<T> norm(stats);
    const std::vector<T> ones(edges, T(1));
    Partial sums(n, edges * c);
    BlendBack<T> first{};
    first.forward = {c, edges, last.size(2) * last.size(3), false, false, last.const_data_ptr<T>(), norm.scale.data(),
                     norm.shift.data(), ones.data(), nullptr, nullptr};
    first.g = g.pointers.data();
    first.steps = g.steps.data();
    first.inv = norm.scale.data();
    first.offset = norm.shift.data();
    out[1 + 2 * stages] = run_blend_back(k, first, n, mix, sums);

    const bool from_x = ctx->needs_input_grad(0);
    const T* weights = mix.const_data_ptr<T>();
    std::vector<const T*> arriving = g.pointers;
    std::vector<int64_t> steps = g.steps;
    Tensor gradient;
    // The first stage whose weights or input need a gradient.
    int64_t until = stages;
    for (int64_t s = stages - 1; s >= 0; --s) {
      if (from_x || ctx->needs_input_grad(1 + 2 * s) || ctx->needs_input_grad(2 + 2 * s)) until = s;
    }
    for (int64_t s = stages - 1; s >= until; --s) {
      const Tensor &dw = of(s, 0), &pw = of(s, 1), &y = of(s, 2);
      const Tensor& input = s ? of(s - 1, 2) : x;
      const Shape sh = shape(input, dw, edges, strides[s], dilations[s]);
      const int64_t taps = sh.kernel * sh.kernel, pixels = sh.oh() * sh.ow();
      Denormalising<T> arrives(edges * c);
      for (int64_t i = 0; i < edges * c; ++i) {
        // The last stage's gradients arrive without the mix.
        const double w = s + 1 == stages ? double(weights[i / c]) : 1;
        arrives.set(i, stats, 1, w, w * sums.first[i], w * sums.second[i], double(n * pixels));
      }
      const Arriving<T> in{arriving.data(), steps.data(), y.const_data_ptr<T>(), arrives.upper.data(), arrives.slope.data(),
                           arrives.constant.data()};
      if (s) stats = Statistics(of(s - 1, 3));
      norm = Normalising<T>(stats);
      const auto taps_first = transposed(dw.const_data_ptr<T>(), edges, c, taps);
      const Stage<T> stage{sh, input.const_data_ptr<T>(), s ? norm.scale.data() : nullptr,
                           s ? norm.shift.data() : nullptr, taps_first.data(), nullptr};
      const bool of_weights = ctx->needs_input_grad(1 + 2 * s) || ctx->needs_input_grad(2 + 2 * s);
      const bool of_input = s > until || (s == 0 && from_x);
      std::vector<T> dw_parts, pw_parts;
      if (of_weights) {
        dw_parts.resize(chunks(n) * edges * taps * c);
        pw_parts.resize(chunks(n) * edges * c * c);
      }
      Tensor next;
      if (of_input) next = blank_images(n, s ? edges * c : c, sh.h, sh.w, x.scalar_type());
      sums = Partial(n, edges * c);
      each_image(n, [&](int64_t chunk, int64_t i) {
        const Gradients<T> to{of_weights ? dw_parts.data() + chunk * edges * taps * c : nullptr,
                              of_weights ? pw_parts.data() + chunk * edges * c * c : nullptr,
                              of_input ? next.mutable_data_ptr<T>() : nullptr, pw.const_data_ptr<T>()};
        k.stage_back(stage, in, to, i, sums.of(chunk), scratch<T>(sh.scratch()));
      });
      sums.add_up();
      if (of_weights) {
        add_up(dw_parts, chunks(n));
        add_up(pw_parts, chunks(n));
        const auto channels_first = transposed(dw_parts.data(), edges, taps, c);
        out[1 + 2 * s] = blank(dw.sizes(), dw.scalar_type());
        out[2 + 2 * s] = blank(pw.sizes(), pw.scalar_type());
        std::copy_n(channels_first.data(), dw.numel(), out[1 + 2 * s].mutable_data_ptr<T>());
        std::copy_n(pw_parts.data(), pw.numel(), out[2 + 2 * s].mutable_data_ptr<T>());
      }
      if (s == 0) {
        if (of_input) out[0] = next;
      } else if (of_input) {
        gradient = next;
        for (int64_t e = 0; e < edges; ++e) arriving[e] = gradient.const_data_ptr<T>() + e * c;
        steps.assign(edges, edges * c);
      }
    }
    pass_on(grads, fresh, out);
    out.emplace_back();
    return out;
  }

  template <class T>
  static void add_up(std::vector<T>& parts, int64_t count) {
    const int64_t size = parts.size() / count;
    for (int64_t i = 0; i < size; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < count; ++k) sum += double(parts[k * size + i]);
      parts[i] = T(sum);
    }
  }

  static variable_list forward(AutogradContext* ctx, at::TensorList in, SeparablePlan plan) {
    RECORD_FUNCTION("nasfw::separable", c10::ArrayRef<const c10::IValue>{});
    check(in, plan);
    ctx->saved_data["strides"] = plan.strides;
    ctx->saved_data["dilations"] = plan.dilations;
    ctx->saved_data["fresh"] = plan.fresh;
    return in[0].scalar_type() == at::kDouble ? run<double>(ctx, in, plan) : run<float>(ctx, in, plan);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward();
    RECORD_FUNCTION("nasfw::separable_backward", c10::ArrayRef<const c10::IValue>{});
    return grads[0].scalar_type() == at::kDouble ? run_back<double>(ctx, grads) : run_back<float>(ctx, grads);
  }
};

// ---- blend -----------------------------------------------------------------------------------------------------

struct BlendPlan {
  bool norm, affine, relu;
  std::vector<int64_t> fresh;
};

// Inputs: y [n, c, h, w] of all edges or [n, edges · c, h, w]; where affine, gain and bias, one number a channel of y;
// mix [edges]; nodes that hold sums.
struct Blending : Function<Blending> {
  struct Layout {
    int64_t n, channels, c, edges, pixels;
    bool shared;

    Layout(const Tensor& y, int64_t c, int64_t edges)
        : n(y.size(0)), channels(y.size(1)), c(c), edges(edges), pixels(y.size(2) * y.size(3)), shared(channels == c) {}
  };

  // scale · y + shift of batch norm with gain and bias.
  template <class T>
  static Normalising<T> scaled(const Statistics& stats, const Tensor* gain, const Tensor* bias) {
    Normalising<T> norm(stats);
    if (gain == nullptr) return norm;
    for (size_t i = 0; i < norm.scale.size(); ++i) {
      const double g = gain->const_data_ptr<T>()[i], b = bias->const_data_ptr<T>()[i];
      norm.scale[i] = T(g * stats.i(i));
      norm.shift[i] = T(b - g * stats.m(i) * stats.i(i));
    }
    return norm;
  }

  static void check(at::TensorList in, const BlendPlan& plan, int64_t c) {
    const Checked checked("nasfw::blend", in[0]);
    const int64_t channels = in[0].size(1), edges = plan.fresh.size();
    checked.ends(in, plan.affine ? 3 : 1, plan.fresh);
    TORCH_CHECK(c > 0 && (channels == c || channels == edges * c), checked.of, ": ", channels,
                " channels are not those of ", edges, " edges of ", c, " channels");
    if (plan.affine) {
      checked.holds("the gain", in[1], channels);
      checked.holds("the bias", in[2], channels);
    }
    if (plan.norm) checked.has_variance(in[0].numel() / channels);
  }

  template <class T>
  static variable_list run(AutogradContext* ctx, at::TensorList in, const BlendPlan& plan) {
    const size_t at_mix = plan.affine ? 3 : 1;
    const Tensor y = dense(in[0]), mix = in[at_mix].contiguous();
    const int64_t edges = plan.fresh.size(), c = ctx->saved_data["c"].toInt();
    const Layout l(y, c, edges);
    const Table<T>& k = checked_table<T>(c);
    variable_list saved{y, mix};
    std::vector<T> scale, shift;
    if (plan.norm) {
      Partial moments(l.n, l.channels);
      each_image(l.n, [&](int64_t chunk, int64_t i) {
        k.moments(y.const_data_ptr<T>(), l.channels, l.pixels, i, moments.of(chunk),
                  (i - first_image(l.n, chunk)) * l.pixels);
      });
      const Statistics stats(moments, l.pixels);
      saved.push_back(stats.data);
      Tensor gain, bias;
      if (plan.affine) {
        gain = in[1].contiguous();
        bias = in[2].contiguous();
        saved.push_back(gain);
        saved.push_back(bias);
      }
      const auto norm = scaled<T>(stats, plan.affine ? &gain : nullptr, plan.affine ? &bias : nullptr);
      scale = norm.scale;
      shift = norm.shift;
    }
    Nodes nodes(in, at_mix + 1, plan.fresh, {l.n, c, y.size(2), y.size(3)}, ctx);
    const auto pointers = nodes.pointers<T>();
    const Blend<T> blend{c, edges, l.pixels, l.shared, plan.relu, y.const_data_ptr<T>(),
                         plan.norm ? scale.data() : nullptr, plan.norm ? shift.data() : nullptr,
                         mix.const_data_ptr<T>(), pointers.data(),
                         nodes.fresh.data()};
    run_blend(k, blend, l.n);
    ctx->save_for_backward(saved);
    return nodes.tensors;
  }

  template <class T>
  static variable_list run_back(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<int64_t> fresh = ctx->saved_data["fresh"].toIntVector();
    const bool normed = ctx->saved_data["norm"].toBool(), affine = ctx->saved_data["affine"].toBool();
    const int64_t c = ctx->saved_data["c"].toInt(), edges = fresh.size();
    const Tensor &y = saved[0], &mix = saved[1];
    const Layout l(y, c, edges);
    const Table<T>& k = checked_table<T>(c);
    const size_t at_mix = affine ? 3 : 1;
    variable_list out(at_mix + 1);
    const NodeGradients<T> g(grads);
    const bool of_y = ctx->needs_input_grad(0);
    // Batch norm needs the sums, and thus the gradients, also where y is shared and only gain and bias are wanted.
    Tensor dy;
    if (of_y || normed) dy = blank_images(y.size(0), y.size(1), y.size(2), y.size(3), y.scalar_type());
    Normalising<T> norm, forward;
    if (normed) norm = Normalising<T>(Statistics(saved[2]));
    if (normed) forward = scaled<T>(Statistics(saved[2]), affine ? &saved[3] : nullptr, affine ? &saved[4] : nullptr);
    Partial sums(l.n, l.channels);
    BlendBack<T> first{};
    first.forward = {c, edges, l.pixels, l.shared, ctx->saved_data["relu"].toBool(), y.const_data_ptr<T>(),
                     normed ? forward.scale.data() : nullptr, normed ? forward.shift.data() : nullptr,
                     mix.const_data_ptr<T>(), nullptr, nullptr};
    first.g = g.pointers.data();
    first.steps = g.steps.data();
    first.inv = normed ? norm.scale.data() : nullptr;
    first.offset = normed ? norm.shift.data() : nullptr;
    first.dy = dy.defined() ? dy.mutable_data_ptr<T>() : nullptr;
    out[at_mix] = run_blend_back(k, first, l.n, mix, sums);
    if (affine) {
      out[1] = blank(saved[3].sizes(), saved[3].scalar_type());
      out[2] = blank(saved[4].sizes(), saved[4].scalar_type());
      for (int64_t i = 0; i < l.channels; ++i) {
        out[1].mutable_data_ptr<T>()[i] = T(sums.second[i]);
        out[2].mutable_data_ptr<T>()[i] = T(sums.first[i]);
      }
    }
    if (of_y && normed) {
      const Statistics stats(saved[2]);
      Denormalising<T> arrives(l.channels);
      for (int64_t i = 0; i < l.channels; ++i) {
        const double gain = affine ? double(saved[3].const_data_ptr<T>()[i]) : 1;
        arrives.set(i, stats, gain, 1, sums.first[i], sums.second[i], double(l.n * l.pixels));
      }
      T* to = dy.mutable_data_ptr<T>();
      each_image(l.n, [&](int64_t, int64_t i) {
        k.affine(to, y.const_data_ptr<T>(), arrives.upper.data(), arrives.slope.data(), arrives.constant.data(),
                 l.channels, l.pixels, i);
      });
    }
    if (of_y) out[0] = dy;
    pass_on(grads, fresh, out);
    out.emplace_back();
    out.emplace_back();
    return out;
  }

  static variable_list forward(AutogradContext* ctx, at::TensorList in, BlendPlan plan, int64_t c) {
    RECORD_FUNCTION("nasfw::blend", c10::ArrayRef<const c10::IValue>{});
    check(in, plan, c);
    ctx->saved_data["norm"] = plan.norm;
    ctx->saved_data["affine"] = plan.affine;
    ctx->saved_data["relu"] = plan.relu;
    ctx->saved_data["fresh"] = plan.fresh;
    ctx->saved_data["c"] = c;
    return in[0].scalar_type() == at::kDouble ? run<double>(ctx, in, plan) : run<float>(ctx, in, plan);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    refuse_double_backward();
    RECORD_FUNCTION("nasfw::blend_backward", c10::ArrayRef<const c10::IValue>{});
    return grads[0].scalar_type() == at::kDouble ? run_back<double>(ctx, grads) : run_back<float>(ctx, grads);
  }
};

// Appends the nodes that hold sums to the inputs; tells which are new.
std::vector<int64_t> add_nodes(variable_list& in, Tensor* const* nodes, int64_t edges) {
  std::vector<int64_t> fresh;
  for (int64_t e = 0; e < edges; ++e) {
    fresh.push_back(nodes[e] == nullptr);
    if (nodes[e] != nullptr) in.push_back(*nodes[e]);
  }
  return fresh;
}

}  // namespace
}  // namespace nasfw

extern "C" {

// Whether there are kernels for `c` channels of 4 or 8 bytes.
bool nasfw_fused_fits(int64_t c, int64_t bytes) {
  return bytes == 4 ? nasfw::table<float>(c) != nullptr : nasfw::table<double>(c) != nullptr;
}

// `weights`: depthwise and pointwise of every stage. `nodes`: null where new. `out`: as many as edges.
char* nasfw_fused_separable(at::Tensor** out, at::Tensor* x, int64_t stages, at::Tensor* const* weights,
                            const int64_t* strides, const int64_t* dilations, at::Tensor* mix, int64_t edges,
                            at::Tensor* const* nodes) {
  return nasfw::guarded([&] {
    torch::autograd::variable_list in{*x};
    for (int64_t i = 0; i < 2 * stages; ++i) in.push_back(*weights[i]);
    in.push_back(*mix);
    const auto fresh = nasfw::add_nodes(in, nodes, edges);
    nasfw::SeparablePlan plan{{strides, strides + stages}, {dilations, dilations + stages}, fresh};
    const auto results = nasfw::Separable::apply(at::TensorList(in), plan);
    for (int64_t e = 0; e < edges; ++e) out[e] = new at::Tensor(results[e]);
  });
}

// `gain` and `bias`: null without; `c`: channels of a node.
char* nasfw_fused_blend(at::Tensor** out, at::Tensor* y, bool norm, at::Tensor* gain, at::Tensor* bias, bool relu,
                        int64_t c, at::Tensor* mix, int64_t edges, at::Tensor* const* nodes) {
  return nasfw::guarded([&] {
    torch::autograd::variable_list in{*y};
    if (gain != nullptr) {
      in.push_back(*gain);
      in.push_back(*bias);
    }
    in.push_back(*mix);
    const auto fresh = nasfw::add_nodes(in, nodes, edges);
    const auto results = nasfw::Blending::apply(at::TensorList(in), nasfw::BlendPlan{norm, gain != nullptr, relu, fresh}, c);
    for (int64_t e = 0; e < edges; ++e) out[e] = new at::Tensor(results[e]);
  });
}

}  // extern "C"
