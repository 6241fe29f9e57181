// The arithmetic of fused operations. Compiled once for every instruction set; ISA names it and VECTOR is the size of
// its vectors in bytes, 16 for the base.

#include "kernels.h"

#include <cstring>
#include <type_traits>

#ifndef ISA
#error "compile with -DISA=name -DVECTOR=bytes"
#endif

#define UNROLL _Pragma("GCC unroll 32")

namespace nasfw {
namespace {

// Sums of floats are kept over this many pixels, then added up in double.
constexpr int64_t kBlock = 256;

template <class T, int Bytes>
struct Lanes {
  typedef T V __attribute__((vector_size(Bytes), aligned(alignof(T)), may_alias));
  static constexpr int64_t n = Bytes / sizeof(T);
};

template <class T, int Bytes>
struct Arithmetic {
  using V = typename Lanes<T, Bytes>::V;
  static constexpr int64_t L = Lanes<T, Bytes>::n;
  // Rows and vectors of a tile of a matrix product, as many as the registers hold.
  static constexpr bool kMany = VECTOR == 64;

  static V load(const T* p) { return *reinterpret_cast<const V*>(p); }
  static void store(T* p, V v) { *reinterpret_cast<V*>(p) = v; }
  static V positive(V v) { return v > 0 ? v : V{}; }

  // Pixels × channels, either as they lie in a tensor (pixel step = all channels, block step = L) or in blocks of L
  // channels (pixel step = L, block step = L · pixels).
  template <class P>
  struct Matrix {
    P* data;
    int64_t pixel, block;
    P* at(int64_t p, int64_t b) const { return data + p * pixel + b * block; }
  };
  using In = Matrix<const T>;
  using Out = Matrix<T>;

  static Out blocked(T* data, int64_t pixels) { return {data, L, L * pixels}; }
  static In read(Out m) { return {m.data, m.pixel, m.block}; }

  // [blocks, h + 2 pad, w + 2 pad, L], zero around the input, at distance `spread` from pixel to pixel.
  template <class F>
  static void pad(T* u, const Shape& s, int64_t rows, int64_t columns, int64_t spread, F value) {
    const int64_t p = s.pad(), wp = s.w + 2 * p, hp = s.h + 2 * p;
    if (p > 0 || spread > 1) std::memset(u, 0, sizeof(T) * hp * wp * s.c);
    for (int64_t b = 0; b < s.c / L; ++b) {
      for (int64_t y = 0; y < rows; ++y) {
        T* row = u + ((b * hp + y * spread + p) * wp + p) * L;
        for (int64_t x = 0; x < columns; ++x) store(row + x * spread * L, value(y * columns + x, b));
      }
    }
  }

  template <int K, int D, int S>
  static void depthwise(const T* u, const T* w, Out d, const Shape& s, int64_t rows, int64_t columns) {
    const int64_t p = s.pad(), wp = s.w + 2 * p, hp = s.h + 2 * p;
    constexpr int N = 4;
    for (int64_t b = 0; b < s.c / L; ++b) {
      V taps[K * K];
      UNROLL for (int t = 0; t < K * K; ++t) taps[t] = load(w + t * s.c + b * L);
      for (int64_t y = 0; y < rows; ++y) {
        const T* row[K];
        UNROLL for (int k = 0; k < K; ++k) row[k] = u + (b * hp + y * S + k * D) * wp * L;
        int64_t x = 0;
        for (; x + N <= columns; x += N) {
          V acc[N] = {};
          UNROLL for (int kh = 0; kh < K; ++kh) {
            UNROLL for (int kw = 0; kw < K; ++kw) {
              UNROLL for (int i = 0; i < N; ++i) {
                acc[i] += load(row[kh] + ((x + i) * S + kw * D) * L) * taps[kh * K + kw];
              }
            }
          }
          UNROLL for (int i = 0; i < N; ++i) store(d.at(y * columns + x + i, b), acc[i]);
        }
        for (; x < columns; ++x) {
          V acc = {};
          UNROLL for (int kh = 0; kh < K; ++kh) {
            UNROLL for (int kw = 0; kw < K; ++kw) acc += load(row[kh] + (x * S + kw * D) * L) * taps[kh * K + kw];
          }
          store(d.at(y * columns + x, b), acc);
        }
      }
    }
  }

  // dw[kh, kw] += Σ u[y S + kh D, x S + kw D] · z[y S + pad, x S + pad], for `Rows` rows of the kernel from `first`.
  template <int K, int D, int S, int Rows>
  static void weight_rows(const T* u, const T* z, T* dw, const Shape& s, int first) {
    const int64_t p = s.pad(), wp = s.w + 2 * p, hp = s.h + 2 * p, oh = s.oh(), ow = s.ow();
    for (int64_t b = 0; b < s.c / L; ++b) {
      V acc[Rows * K] = {};
      for (int64_t y = 0; y < oh; ++y) {
        const T* row[Rows];
        UNROLL for (int k = 0; k < Rows; ++k) row[k] = u + (b * hp + y * S + (first + k) * D) * wp * L;
        const T* g = z + ((b * hp + y * S + p) * wp + p) * L;
        for (int64_t x = 0; x < ow; ++x) {
          V v = load(g + x * S * L);
          UNROLL for (int kh = 0; kh < Rows; ++kh) {
            UNROLL for (int kw = 0; kw < K; ++kw) acc[kh * K + kw] += load(row[kh] + (x * S + kw * D) * L) * v;
          }
        }
      }
      UNROLL for (int t = 0; t < Rows * K; ++t) {
        T* at = dw + (first * K + t) * s.c + b * L;
        store(at, load(at) + acc[t]);
      }
    }
  }

  template <int K, int D, int S>
  static void depthwise_weight(const T* u, const T* z, T* dw, const Shape& s) {
    constexpr int kRows = kMany ? (K <= 5 ? K : 3) : (K == 3 ? 3 : K == 5 ? 2 : 1);
    int first = 0;
    for (; first + kRows <= K; first += kRows) weight_rows<K, D, S, kRows>(u, z, dw, s, first);
    for (; first < K; ++first) weight_rows<K, D, S, 1>(u, z, dw, s, first);
  }

  // out[p, co] = Σ a[p, ci] · w[ci, co] for R pixels from p and NV blocks from b.
  template <int R, int NV>
  static void product_tile(In a, const T* w, Out out, int64_t c, int64_t p, int64_t b) {
    V acc[R][NV] = {};
    for (int64_t k = 0; k < c / L; ++k) {
      for (int64_t j = 0; j < L; ++j) {
        V wv[NV];
        UNROLL for (int v = 0; v < NV; ++v) wv[v] = load(w + (k * L + j) * c + (b + v) * L);
        UNROLL for (int r = 0; r < R; ++r) {
          const T x = a.at(p + r, k)[j];
          UNROLL for (int v = 0; v < NV; ++v) acc[r][v] += x * wv[v];
        }
      }
    }
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int v = 0; v < NV; ++v) store(out.at(p + r, b + v), acc[r][v]);
    }
  }

  template <int R, int NV>
  static void product_blocks(In a, const T* w, Out out, int64_t c, int64_t pixels, int64_t b) {
    int64_t p = 0;
    for (; p + R <= pixels; p += R) product_tile<R, NV>(a, w, out, c, p, b);
    for (; p < pixels; ++p) product_tile<1, NV>(a, w, out, c, p, b);
  }

  static void product(In a, const T* w, Out out, int64_t c, int64_t pixels) {
    int64_t b = 0;
    for (; b + 2 <= c / L; b += 2) product_blocks<kMany ? 12 : 6, 2>(a, w, out, c, pixels, b);
    for (; b < c / L; ++b) product_blocks<kMany ? 16 : 8, 1>(a, w, out, c, pixels, b);
  }

  // dw[co, ci] += Σ_p dy[p, co] · a[p, ci] for R outputs from co and NV blocks from b.
  template <int R, int NV>
  static void outer_tile(In dy, In a, T* dw, int64_t c, int64_t pixels, int64_t co, int64_t b) {
    V acc[R][NV] = {};
    const T* left = dy.at(0, co / L) + co % L;
    for (int64_t p = 0; p < pixels; ++p) {
      V av[NV];
      UNROLL for (int v = 0; v < NV; ++v) av[v] = load(a.at(p, b + v));
      UNROLL for (int r = 0; r < R; ++r) {
        const T g = left[p * dy.pixel + r];
        UNROLL for (int v = 0; v < NV; ++v) acc[r][v] += g * av[v];
      }
    }
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int v = 0; v < NV; ++v) {
        T* at = dw + (co + r) * c + (b + v) * L;
        store(at, load(at) + acc[r][v]);
      }
    }
  }

  static void outer(In dy, In a, T* dw, int64_t c, int64_t pixels) {
    constexpr int R = L < 8 ? int(L) : 8;
    for (int64_t co = 0; co < c; co += R) {
      int64_t b = 0;
      if constexpr (kMany) {
        for (; b + 2 <= c / L; b += 2) outer_tile<R, 2>(dy, a, dw, c, pixels, co, b);
      }
      for (; b < c / L; ++b) outer_tile<R, 1>(dy, a, dw, c, pixels, co, b);
    }
  }

  // Merges the moments of `pixels` pixels into those of `seen` numbers (Chan, Golub & LeVeque 1983).
  static void merge_moments(In y, int64_t c, int64_t pixels, Sums m, int64_t seen) {
    for (int64_t b = 0; b < c / L; ++b) {
      int64_t before = seen;
      for (int64_t from = 0; from < pixels; from += kBlock) {
        const int64_t to = from + kBlock < pixels ? from + kBlock : pixels;
        const T count = T(to - from);
        V sum = {};
        for (int64_t p = from; p < to; ++p) sum += load(y.at(p, b));
        const V mean = sum / count;
        V squares = {};
        for (int64_t p = from; p < to; ++p) {
          const V d = load(y.at(p, b)) - mean;
          squares += d * d;
        }
        const double n = double(to - from), all = double(before) + n;
        for (int64_t j = 0; j < L; ++j) {
          double &first = m.first[b * L + j], &second = m.second[b * L + j];
          const double delta = double(mean[j]) - first;
          first += delta * n / all;
          second += double(squares[j]) + delta * delta * double(before) * n / all;
        }
        before += to - from;
      }
    }
  }

  static void add(double* to, V v) {
    for (int64_t j = 0; j < L; ++j) to[j] += double(v[j]);
  }

  // Calls f with the kernel's size, dilation and stride as constants.
  template <class F>
  static void with_shape(const Shape& s, int64_t stride, F f) {
    const auto by_stride = [&](auto k, auto d) {
      if (stride == 1) {
        f(k, d, std::integral_constant<int, 1>{});
      } else {
        f(k, d, std::integral_constant<int, 2>{});
      }
    };
    const auto by_dilation = [&](auto k) {
      if (s.dilation == 1) {
        by_stride(k, std::integral_constant<int, 1>{});
      } else {
        by_stride(k, std::integral_constant<int, 2>{});
      }
    };
    if (s.kernel == 3) {
      by_dilation(std::integral_constant<int, 3>{});
    } else if (s.kernel == 5) {
      by_dilation(std::integral_constant<int, 5>{});
    } else {
      by_dilation(std::integral_constant<int, 7>{});
    }
  }

  static void run_depthwise(const T* u, const T* w, Out d, const Shape& s, int64_t stride, int64_t rows, int64_t columns) {
    with_shape(s, stride, [&](auto k, auto d_, auto st) {
      depthwise<decltype(k)::value, decltype(d_)::value, decltype(st)::value>(u, w, d, s, rows, columns);
    });
  }

  // The stage's rectified input of edge e with zeros around it.
  static void activate(const Stage<T>& st, int64_t n, int64_t e, T* u) {
    const Shape& s = st.shape;
    const int64_t pixels = s.h * s.w;
    if (st.scale == nullptr) {
      const T* x = st.input + n * pixels * s.c;
      pad(u, s, s.h, s.w, 1, [&](int64_t p, int64_t b) { return positive(load(x + p * s.c + b * L)); });
    } else {
      const T* x = st.input + (n * pixels * s.edges + e) * s.c;
      const T *scale = st.scale + e * s.c, *shift = st.shift + e * s.c;
      pad(u, s, s.h, s.w, 1, [&](int64_t p, int64_t b) {
        return positive(load(x + p * s.edges * s.c + b * L) * load(scale + b * L) + load(shift + b * L));
      });
    }
  }

  static void stage(const Stage<T>& st, int64_t n, T* output, Sums moments, int64_t seen, T* scratch) {
    const Shape& s = st.shape;
    const int64_t c = s.c, pixels = s.oh() * s.ow();
    T* u = scratch;
    const Out d = blocked(u + s.padded() * c, pixels);
    if (st.scale == nullptr) activate(st, n, 0, u);
    for (int64_t e = 0; e < s.edges; ++e) {
      if (st.scale != nullptr) activate(st, n, e, u);
      run_depthwise(u, st.depthwise + e * s.kernel * s.kernel * c, d, s, s.stride, s.oh(), s.ow());
      const Out out{output + (n * pixels * s.edges + e) * c, s.edges * c, L};
      product(read(d), st.pointwise + e * c * c, out, c, pixels);
      merge_moments(read(out), c, pixels, {moments.first + e * c, moments.second + e * c}, seen);
    }
  }

  static void stage_back(const Stage<T>& st, const Arriving<T>& in, const Gradients<T>& out, int64_t n, Sums sums,
                         T* scratch) {
    const Shape& s = st.shape;
    const int64_t c = s.c, taps = s.kernel * s.kernel, pixels = s.oh() * s.ow(), inputs = s.h * s.w;
    const bool shared = st.scale == nullptr, weights = out.depthwise != nullptr;
    T* u = scratch;
    T* z = u + s.padded() * c;
    T* rest = z + s.padded() * c;
    const Out dy = blocked(rest, pixels), d = blocked(rest + pixels * c, pixels);
    // Later than d, which is not needed any more.
    const Out du = blocked(rest + pixels * c, inputs);
    T* total = rest + (pixels + inputs) * c;
    if (shared) {
      activate(st, n, 0, u);
      std::memset(total, 0, sizeof(T) * inputs * c);
    }
    T* flipped = total + inputs * c;
    for (int64_t e = 0; e < s.edges; ++e) {
      const int64_t step = in.steps[e];
      const T* g = in.g[e] + n * pixels * step;
      const T* y = in.y + (n * pixels * s.edges + e) * c;
      for (int64_t b = 0; b < c / L; ++b) {
        const int64_t at = e * c + b * L;
        const V upper = load(in.upper + at), slope = load(in.slope + at), constant = load(in.constant + at);
        for (int64_t p = 0; p < pixels; ++p) {
          store(dy.at(p, b), upper * load(g + p * step + b * L) + slope * load(y + p * s.edges * c + b * L) + constant);
        }
      }
      if (!shared) activate(st, n, e, u);
      if (weights) {
        run_depthwise(u, st.depthwise + e * taps * c, d, s, s.stride, s.oh(), s.ow());
        outer(read(dy), read(d), out.pointwise + e * c * c, c, pixels);
      }
      product(read(dy), out.pointwise_t + e * c * c, d, c, pixels);
      pad(z, s, s.oh(), s.ow(), s.stride, [&](int64_t p, int64_t b) { return load(d.at(p, b)); });
      if (weights) {
        with_shape(s, s.stride, [&](auto k, auto d_, auto stride) {
          depthwise_weight<decltype(k)::value, decltype(d_)::value, decltype(stride)::value>(
              u, z, out.depthwise + e * taps * c, s);
        });
      }
      if (!out.input) continue;
      const T* w = st.depthwise + e * taps * c;
      for (int64_t t = 0; t < taps; ++t) std::memcpy(flipped + t * c, w + (taps - 1 - t) * c, sizeof(T) * c);
      run_depthwise(z, flipped, du, s, 1, s.h, s.w);
      if (shared) {
        for (int64_t i = 0; i < inputs * c; i += L) store(total + i, load(total + i) + load(du.data + i));
      } else {
        normalised_gradient(st, out, n, e, du, sums);
      }
    }
    if (shared && out.input) {
      const int64_t p = s.pad(), wp = s.w + 2 * p, hp = s.h + 2 * p;
      for (int64_t b = 0; b < c / L; ++b) {
        for (int64_t i = 0; i < inputs; ++i) {
          const V x = load(u + ((b * hp + i / s.w + p) * wp + i % s.w + p) * L);
          store(out.input + (n * inputs + i) * c + b * L, x > 0 ? load(total + (b * inputs + i) * L) : V{});
        }
      }
    }
  }

  static void normalised_gradient(const Stage<T>& st, const Gradients<T>& out, int64_t n, int64_t e, Out du, Sums sums) {
    const Shape& s = st.shape;
    const int64_t c = s.c, inputs = s.h * s.w, step = s.edges * c;
    const T* x = st.input + (n * inputs * s.edges + e) * c;
    T* to = out.input + (n * inputs * s.edges + e) * c;
    for (int64_t b = 0; b < c / L; ++b) {
      const int64_t at = e * c + b * L;
      const V scale = load(st.scale + at), shift = load(st.shift + at);
      for (int64_t from = 0; from < inputs; from += kBlock) {
        const int64_t end = from + kBlock < inputs ? from + kBlock : inputs;
        V first = {}, second = {};
        for (int64_t p = from; p < end; ++p) {
          const V xhat = load(x + p * step + b * L) * scale + shift;
          const V g = xhat > 0 ? load(du.at(p, b)) : V{};
          store(to + p * step + b * L, g);
          first += g;
          second += g * xhat;
        }
        add(sums.first + at, first);
        add(sums.second + at, second);
      }
    }
  }

  static void moments(const T* y, int64_t channels, int64_t pixels, int64_t n, Sums m, int64_t seen) {
    merge_moments({y + n * pixels * channels, channels, L}, channels, pixels, m, seen);
  }

  static void blend(const Blend<T>& bl, int64_t n) {
    const int64_t c = bl.c, step = bl.shared ? c : bl.edges * c;
    const T* y = bl.y + n * bl.pixels * step;
    for (int64_t p = 0; p < bl.pixels; ++p) {
      for (int64_t e = 0; e < bl.edges; ++e) {
        const int64_t at = bl.shared ? 0 : e * c;
        T* node = bl.nodes[e] + (n * bl.pixels + p) * c;
        for (int64_t i = 0; i < c; i += L) {
          V v = load(y + p * step + at + i);
          if (bl.scale != nullptr) v = v * load(bl.scale + at + i) + load(bl.shift + at + i);
          if (bl.relu) v = positive(v);
          v = v * bl.weight[e];
          store(node + i, bl.fresh[e] ? v : load(node + i) + v);
        }
      }
    }
  }

  static void blend_back(const BlendBack<T>& bb, int64_t n) {
    const Blend<T>& f = bb.forward;
    const int64_t c = f.c, edges = f.edges, step = f.shared ? c : edges * c;
    const T* y = f.y + n * f.pixels * step;
    T* dy = bb.dy == nullptr ? nullptr : bb.dy + n * f.pixels * step;
    for (int64_t e = 0; e < edges; ++e) {
      const int64_t row = f.shared ? 0 : e * c;
      const bool first_edge = !f.shared || e == 0, last_edge = !f.shared || e + 1 == edges;
      for (int64_t i = 0; i < c; i += L) {
        const bool normed = f.scale != nullptr;
        const V scale = normed ? load(f.scale + row + i) : V{} + T(1), shift = normed ? load(f.shift + row + i) : V{};
        const V inv = bb.inv ? load(bb.inv + row + i) : V{} + T(1), offset = bb.inv ? load(bb.offset + row + i) : V{};
        const T weight = f.weight[e];
        for (int64_t from = 0; from < f.pixels; from += kBlock) {
          const int64_t to = from + kBlock < f.pixels ? from + kBlock : f.pixels;
          V of_weight = {}, first = {}, second = {};
          for (int64_t p = from; p < to; ++p) {
            const V v = load(y + p * step + row + i);
            V g = load(bb.g[e] + (n * f.pixels + p) * bb.steps[e] + i);
            const V z = v * scale + shift;
            if (f.relu) g = z > 0 ? g : V{};
            of_weight += g * z;
            V sum = g * weight;
            if (dy != nullptr) {
              T* at = dy + p * step + row + i;
              if (!first_edge) sum += load(at);
              store(at, sum);
            }
            if (last_edge) {
              first += sum;
              second += sum * (v * inv + offset);
            }
          }
          add(bb.weight + e * c + i, of_weight);
          add(bb.sums.first + row + i, first);
          add(bb.sums.second + row + i, second);
        }
      }
    }
  }

  static void affine(T* dy, const T* y, const T* upper, const T* slope, const T* constant, int64_t channels,
                     int64_t pixels, int64_t n) {
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t at = (n * pixels + p) * channels;
      for (int64_t i = 0; i < channels; i += L) {
        store(dy + at + i, load(dy + at + i) * load(upper + i) + load(y + at + i) * load(slope + i) + load(constant + i));
      }
    }
  }

  static const Table<T>* table() {
    static const Table<T> t{stage, stage_back, moments, blend, blend_back, affine};
    return &t;
  }
};

}  // namespace

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)

const Table<float>* CONCAT(float_, ISA)(int64_t c) {
  using A = Arithmetic<float, VECTOR>;
  return c % A::L == 0 ? A::table() : nullptr;
}

#if VECTOR == 16
// Double precision serves tests, so that one instruction set is enough.
const Table<double>* double_base(int64_t c) {
  using A = Arithmetic<double, VECTOR>;
  return c % A::L == 0 ? A::table() : nullptr;
}
#endif

}  // namespace nasfw
