// All parameters of a network as views of one flat vector: one call forward, one concatenation backward, where libtorch's
// own operators take several calls a parameter.

#include "guarded.h"

#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>

#include <vector>

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// A tensor of `size` over the contiguous memory of `base` from `offset`. It shares the count of changes, so that autograd
// notices when the vector changes between forward and backward passes.
Tensor over(const Tensor& base, int64_t offset, at::IntArrayRef size) {
  auto* of = base.unsafeGetTensorImpl();
  auto impl = of->shallow_copy_and_detach(of->version_counter(), true);
  impl->set_sizes_contiguous(size);
  impl->set_storage_offset(base.storage_offset() + offset);
  return Tensor(std::move(impl));
}

struct Views : Function<Views> {
  static variable_list forward(AutogradContext* ctx, const Tensor& flat, std::vector<std::vector<int64_t>> sizes) {
    RECORD_FUNCTION("nasfw::views", c10::ArrayRef<const c10::IValue>{});
    variable_list views;
    std::vector<int64_t> counts;
    int64_t offset = 0;
    for (const auto& size : sizes) {
      for (const int64_t side : size) TORCH_CHECK(side >= 0, "nasfw::views: a view can't be of ", side, " numbers");
      views.push_back(over(flat, offset, size));
      counts.push_back(views.back().numel());
      offset += counts.back();
    }
    TORCH_CHECK(offset == flat.numel(), "a vector of ", flat.numel(), " numbers does not hold ", offset);
    ctx->saved_data["counts"] = counts;
    ctx->saved_data["like"] = flat.new_empty({0});
    ctx->set_materialize_grads(false);
    return views;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    RECORD_FUNCTION("nasfw::views_backward", c10::ArrayRef<const c10::IValue>{});
    const auto counts = ctx->saved_data["counts"].toIntVector();
    const Tensor like = ctx->saved_data["like"].toTensor();
    variable_list parts;
    int64_t zeros = 0;
    const auto add_zeros = [&] {
      if (zeros > 0) parts.push_back(at::zeros({zeros}, like.options()));
      zeros = 0;
    };
    for (size_t i = 0; i < grads.size(); ++i) {
      if (!grads[i].defined()) {
        zeros += counts[i];
        continue;
      }
      add_zeros();
      const Tensor& g = grads[i];
      // With a graph, for second derivatives, reshaping must be part of it.
      const bool as_it_lies = !at::GradMode::is_enabled() && g.is_contiguous();
      parts.push_back(as_it_lies ? over(g, 0, {counts[i]}) : g.reshape({-1}));
    }
    add_zeros();
    return {at::cat(parts, 0), Tensor()};
  }
};

}  // namespace

// `sizes`: the dimensions of all views one after the other, `dims` of each. Gives a message to free, or null.
extern "C" char* nasfw_views(at::Tensor** out, at::Tensor* flat, int64_t views, const int64_t* dims,
                             const int64_t* sizes) {
  return nasfw::guarded([&] {
    std::vector<std::vector<int64_t>> all;
    for (int64_t i = 0; i < views; ++i) {
      all.emplace_back(sizes, sizes + dims[i]);
      sizes += dims[i];
    }
    const auto made = Views::apply(flat->contiguous(), all);
    for (int64_t i = 0; i < views; ++i) out[i] = new Tensor(made[i]);
  });
}
