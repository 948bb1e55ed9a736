#include "parallel/logits_head.hpp"

#include "comm/labels.hpp"

namespace llama3d {

void VocabularyParallelLogits::forward(const Tensor& x, const Tensor& logits) const {
  const Tensor own =
      logits.slice(tp_->rank(), tp_->rank() + 1).reshape({logits.shape()[1], logits.shape()[2]});
  tp_->kernels().linear_forward(x, weight_, own, tp_->stream());
  if (tp_->size() > 1)
    tp_->group().all_gather(own, logits, labels::tp_logits, tp_->stream())->wait(tp_->stream());
}

}  // namespace llama3d
