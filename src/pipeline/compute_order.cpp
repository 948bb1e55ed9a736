#include "pipeline/compute_order.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace llama3d {
namespace {

using Actions = std::vector<Action>;

/// The pattern behind every schedule here: `warm_up` forwards, then one forward and one backward in turn,
/// then the backwards that are left. `forward` and `backward` are called with 0, 1, ... count - 1.
template <class Forward, class Backward>
void one_forward_one_backward(int count, int warm_up, Forward forward, Backward backward) {
  for (int k = 0; k < warm_up; ++k) forward(k);
  for (int k = 0; k < count - warm_up; ++k) {
    forward(warm_up + k);
    backward(k);
  }
  for (int k = count - warm_up; k < count; ++k) backward(k);
}

Actions gpipe(const PipelineShape& shape) {
  Actions order;
  one_forward_one_backward(
      shape.micro_batches, /*warm_up=*/shape.micro_batches,
      [&](int k) {
        order.push_back({ActionKind::forward, k});
      },
      [&](int k) {
        order.push_back({ActionKind::backward, k});
      });
  return order;
}

/// `a_stage` forwards ahead for each stage behind, whose backwards come first.
int warm_up(const PipelineShape& shape, int stage, int a_stage) {
  return std::min(shape.micro_batches, a_stage * (shape.stages - 1 - stage));
}

/// With one forward ahead a stage, a micro-batch's transfers follow its computations without a gap: there is
/// nothing to hide them behind. With two, each has a whole computation of another micro-batch.
Actions one_f_one_b(const PipelineShape& shape, int stage, ReceiveStart receives) {
  Actions order;
  one_forward_one_backward(
      shape.micro_batches, warm_up(shape, stage, receives == ReceiveStart::ahead ? 2 : 1),
      [&](int k) {
        order.push_back({ActionKind::forward, k});
      },
      [&](int k) {
        order.push_back({ActionKind::backward, k});
      });
  return order;
}

/// Micro-batches travel in groups of `stages`: a group passes chunk 0 on every stage, then chunk 1, and so
/// on; backwards the same from the last chunk down.
Actions interleaved(const PipelineShape& shape, int stage) {
  const int p = shape.stages, v = shape.chunks, total = shape.micro_batches * v;
  const auto micro_batch = [=](int k) { return k / (p * v) * p + k % p; };
  const auto chunk = [=](int k) { return k % (p * v) / p; };
  // Two forwards ahead for each stage behind, so that a transfer has a whole computation to hide under, and
  // the first group's way through all chunks but the last.
  const int forwards_ahead = std::min(total, 2 * (p - 1 - stage) + (v - 1) * p);
  Actions order;
  one_forward_one_backward(
      total, forwards_ahead,
      [&](int k) {
        order.push_back({ActionKind::forward, micro_batch(k), chunk(k)});
      },
      [&](int k) {
        order.push_back({ActionKind::backward, micro_batch(k), v - 1 - chunk(k)});
      });
  return order;
}

/// 1f1b with the weight gradients `stage` micro-batches behind the input gradients. So stage s holds p - 1 -
/// s warm-up forwards, s postponed weight gradients and the micro-batch at work: p on every stage. What was
/// postponed fills the end, where 1f1b waits. Where a weight part takes no longer than a forward and than an
/// input part, each rank idles for (p - 1) (F + B - W), with at least p micro-batches.
Actions zero_bubble_h1(const PipelineShape& shape, int stage) {
  const int m = shape.micro_batches;
  Actions order;
  one_forward_one_backward(
      m, warm_up(shape, stage, 1),
      [&](int k) {
        order.push_back({ActionKind::forward, k});
      },
      [&](int k) {
        order.push_back({ActionKind::backward_input, k});
        if (k >= stage) order.push_back({ActionKind::backward_weight, k - stage});
      });
  for (int k = std::max(0, m - stage); k < m; ++k) order.push_back({ActionKind::backward_weight, k});
  return order;
}

}  // namespace

std::vector<Action> compute_order(ScheduleKind kind, const PipelineShape& shape, int stage,
                                  ReceiveStart receives) {
  switch (kind) {
    case ScheduleKind::gpipe: return gpipe(shape);
    case ScheduleKind::one_f_one_b: return one_f_one_b(shape, stage, receives);
    case ScheduleKind::interleaved: return interleaved(shape, stage);
    case ScheduleKind::zero_bubble: return zero_bubble_h1(shape, stage);
  }
  throw ContractViolation("unknown schedule kind");
}

std::vector<Action> forward_order(const PipelineShape& shape) {
  // In groups, as when training: while a group is in one chunk, its first micro-batch comes round to the
  // next.
  Actions order;
  for (int begin = 0; begin < shape.micro_batches; begin += shape.stages)
    for (int chunk = 0; chunk < shape.chunks; ++chunk)
      for (int k = begin; k < std::min(begin + shape.stages, shape.micro_batches); ++k)
        order.push_back({ActionKind::forward, k, chunk});
  return order;
}

}  // namespace llama3d
