// A scalar whose gradients are known: what a loss leaves behind whose graph is gone.

#include "guarded.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <vector>

namespace {

using torch::autograd::variable_list;

struct Surrogate : torch::autograd::Node {
  variable_list gradients;
  bool released = false;

  variable_list apply(variable_list&& grads) override {
    TORCH_CHECK(!released, torch::autograd::ERR_BACKWARD_TWICE);
    // The slope of the gradients is gone with the graph: better an error than a silent zero.
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "a loss taken in micro-batches can't be differentiated twice: set trainer.micro_batch = 0");
    variable_list slopes(gradients.size());
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (grads[0].defined() && task_should_compute_output(i)) {
        slopes[i] = gradients[i].mul(grads[0]);
      }
    }
    return slopes;
  }

  void release_variables() override {
    gradients.clear();
    released = true;
  }

  std::string name() const override { return "nasfw::Surrogate"; }
};

}  // namespace

// Gives a message to free, or null.
extern "C" char* nasfw_surrogate(at::Tensor** out, const at::Tensor* value, at::Tensor* const* inputs,
                                 at::Tensor* const* gradients, size_t count) {
  return nasfw::guarded([&] {
    auto node = c10::make_intrusive<Surrogate>();
    variable_list leaves;
    for (size_t i = 0; i < count; ++i) {
      leaves.push_back(*inputs[i]);
      node->gradients.push_back(gradients[i]->detach());
    }
    node->set_next_edges(torch::autograd::collect_next_edges(leaves));
    auto* scalar = new at::Tensor(value->detach());
    torch::autograd::set_history(*scalar, node);
    *out = scalar;
  });
}
